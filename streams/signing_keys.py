"""The worker's file of signing keys: masters by id, and nodes whose records are refused; secrets stand in own files."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import structlog
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from schemas.documents import DocumentError, load_document
from schemas.secret_files import SecretFileError
from schemas.signatures import MAX_KEY_ID
from schemas.signing_files import read_master
from streams.core.signing import Keyring, Master
from streams.processors.signature_gate import Signatures

LOOK_EVERY_S = 5.0

log: structlog.stdlib.BoundLogger = structlog.get_logger("fleetbeat.signing")


def _not_before_1970(moment: datetime) -> datetime:
    if moment < datetime(1970, 1, 1, tzinfo=UTC):
        raise ValueError("expected a time since 1970")
    return moment


Moment = Annotated[AwareDatetime, AfterValidator(_not_before_1970)]
NodeId = Annotated[str, Field(min_length=1, max_length=255)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MasterFile(_Strict):
    """A master secret; `until`: records that are appended then or later are refused."""

    id: Annotated[int, Field(ge=0, le=MAX_KEY_ID)]
    file: Annotated[str, Field(min_length=1)]
    until: Moment | None = None


class RevokedFile(_Strict):
    """A node whose records are refused from an append time on; without it always."""

    node: NodeId
    since: Moment | None = None


class KeyringFile(_Strict):
    """The file as a whole."""

    keys: Annotated[list[MasterFile], Field(min_length=1)]
    revoked: list[RevokedFile] = []


def load_keyring(path: Path) -> Keyring:
    """Raises DocumentError with every problem; secrets that others can read are one. None of them is shown.

    Files of secrets are relative to the file's own folder.
    """
    file = load_document(path, KeyringFile)
    masters: dict[int, Master] = {}
    problems = []
    for number, entry in enumerate(file.keys):
        if entry.id in masters:
            problems.append(f"{path}: keys.{number}.id: value {entry.id}: expected each id once")
        try:
            secret = read_master(path.parent / entry.file, f"keys.{number}.file")
        except SecretFileError as cause:
            problems.append(f"{path}: {cause}")
        else:
            masters[entry.id] = Master(secret, None if entry.until is None else _ms(entry.until))
    if problems:
        raise DocumentError(problems)
    revoked: dict[str, int] = {}
    for node in file.revoked:
        since_ms = 0 if node.since is None else _ms(node.since)
        revoked[node.node] = min(since_ms, revoked.get(node.node, since_ms))
    return Keyring(masters, revoked)


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000)


def signatures_of(mode: str, path: Path | None) -> Signatures | None:
    """What a worker does about signatures, by its options; None for nothing. Raises DocumentError."""
    return None if path is None else Signatures(load_keyring(path), refuses=mode == "require")


async def follow_keyring(path: Callable[[], Path | None], signatures: Signatures | None) -> None:
    """Takes the file over whenever it has changed, until cancelled; what cannot be used changes nothing."""
    while (file := path()) is not None and signatures is not None:
        await asyncio.sleep(LOOK_EVERY_S)
        try:
            keyring = await asyncio.to_thread(load_keyring, file)
        except DocumentError as cause:
            log.error("the signing keys stay what they were", why=str(cause))  # noqa: TRY400 - the sentence says it all
            continue
        if keyring != signatures.keyring and file == path():
            signatures.keyring = keyring
            log.info("signing keys", ids=sorted(keyring.masters), revoked=len(keyring.revoked))
