"""The files of this room that `fleetbeat check` knows."""

from pathlib import Path

from pydantic import BaseModel

from schemas.checking import FileKind
from streams.config import load_objectives
from streams.settings.load import load_file
from streams.settings.worker import WORKER_FILE, WorkerFile


def _objectives(path: Path) -> str:
    return f"{len(load_objectives(path))} objectives"


def _worker(path: Path) -> str:
    load_file(path, WORKER_FILE)
    return "a worker"


def _archive(path: Path) -> str:
    from streams.settings.archive import ARCHIVE_FILE  # noqa: PLC0415 - brings all of the archive

    load_file(path, ARCHIVE_FILE)
    return "an archive"


def _archive_model() -> type[BaseModel]:
    from streams.settings.archive import ArchiveFile  # noqa: PLC0415 - as above

    return ArchiveFile


_ANYBODYS = frozenset({"kafka", "listen", "metrics", "log_level"})
_WORKERS = frozenset(WorkerFile.model_fields)
_ARCHIVES = frozenset({"clickhouse", "store", "keep", "cold_after", "sql_users", "sql", "batches", "ready_lag_records"})

KINDS = (
    FileKind("objectives", "objectives (kind: SLO)", frozenset({"apiVersion", "kind"}), _objectives),
    FileKind("worker", "a worker", _WORKERS - _ANYBODYS, _worker, lambda: WorkerFile, _ANYBODYS & _WORKERS),
    FileKind("archive", "an archive", _ARCHIVES, _archive, _archive_model, _ANYBODYS),
)
