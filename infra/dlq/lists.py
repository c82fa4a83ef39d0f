"""Letters and counts as a table on a terminal, as lines with tabs or as JSON elsewhere."""

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from infra.dlq.letters import Entry, Group
from infra.dlq.log import Notes
from infra.dlq.words import cell, key_text, moment, plain


def show_entries(entries: Sequence[Entry], notes: Notes, *, as_json: bool) -> None:
    """One row a letter."""
    rows = [_entry(entry, notes) for entry in entries]
    _show(rows, as_json=as_json)


def show_groups(groups: Sequence[Group], *, as_json: bool) -> None:
    """One row a topic and reason."""
    rows = [
        {
            "topic": group.topic,
            "reason": group.reason,
            "letters": group.letters,
            "replayed": group.replayed,
            "first": moment(group.first_ms),
            "last": moment(group.last_ms),
        }
        for group in groups
    ]
    _show(rows, as_json=as_json)


def _entry(entry: Entry, notes: Notes) -> dict[str, Any]:
    begun = "begun" if entry.origin in notes.begun else "no"
    return {
        "origin": entry.origin.place,
        "appended": moment(entry.origin.append_ms),
        "reason": entry.reason,
        "replayed": "yes" if entry.origin in notes.done else begun,
        "key": None if entry.key is None else key_text(entry.key),
        "bytes": entry.value_bytes,
        "by": entry.detected_by,
        "detail": entry.detail,
    }


def _show(rows: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    console = Console()
    if as_json:
        for row in rows:
            print(json.dumps(row))
    elif not console.is_terminal:
        for row in rows:
            print("\t".join(_text(value) for value in row.values()))
    elif rows:
        table = Table(*rows[0], box=None)
        for row in rows:
            table.add_row(*(escape(cell(_text(value))) for value in row.values()))
        console.print(table)


def _text(value: str | int | None) -> str:
    return "null" if value is None else plain(str(value))
