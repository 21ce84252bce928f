"""What a transform wrote: which files hold which table. It lies beside them, in ``_manifests/``."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_speechkit.results.files import FileFormat

if TYPE_CHECKING:
    from collections.abc import Collection

#: Query engines leave out what begins with an underscore.
MANIFESTS = "_manifests"

#: What compacted files are called, without their ending.
COMPACTED_STEM = "part-0"

_LONGEST_STEM = 100


@dataclass(frozen=True)
class Unread:
    """An operation whose answer could not be read.

    :param operation_id: the operation, or the file that was to hold its answer
    :param reason: why not
    :param retry_can_help: whether it may be read the next time
    """

    operation_id: str
    reason: str
    retry_can_help: bool = False


@dataclass(frozen=True)
class WrittenTable:
    """The files of one table.

    :param paths: where they are below the target
    :param rows: how many rows they have together
    """

    paths: tuple[str, ...]
    rows: int


@dataclass(frozen=True)
class Manifest:
    """What was written.

    :param target: the folder's URL
    :param file_format: the files' format
    :param name: the manifest's own, the same for the same operations
    :param tables: the files of each table
    :param operations: how many operations are in them
    :param identical_channels: how many of them say the same in all channels: mono that was stored as stereo
    :param unread: the operations whose answers could not be read, which are not in the files
    """

    target: str
    file_format: FileFormat
    name: str
    tables: dict[str, WrittenTable]
    operations: int
    identical_channels: int = 0
    unread: tuple[Unread, ...] = field(default=())

    #: So many of the unread operations are named in the JSON; all of them are counted.
    NAMED = 100

    @property
    def place(self) -> str:
        """Its file below the target."""
        return f"{MANIFESTS}/{self.name}.json"

    @property
    def url(self) -> str:
        """Where its file is."""
        return f"{self.target}/{self.place}"

    def summary(self) -> dict[str, Any]:
        """Return what goes through XCom: plain JSON types, whose size doesn't depend on the number of operations."""
        return {
            "manifest": self.url,
            "format": self.file_format.value,
            "operations": self.operations,
            "rows": {name: table.rows for name, table in self.tables.items()},
            "identical_channels": self.identical_channels,
            "unread": {
                "count": len(self.unread),
                "operations": {one.operation_id: one.reason for one in self.unread[: self.NAMED]},
            },
        }

    def to_json(self) -> dict[str, Any]:
        """Return what its file holds, in plain JSON types."""
        summary = self.summary()
        del summary["manifest"], summary["rows"]
        tables = {name: {"paths": list(table.paths), "rows": table.rows} for name, table in self.tables.items()}
        return {**summary, "tables": tables}

    @classmethod
    def from_json(cls, data: dict[str, Any], url: str) -> Manifest:
        """Rebuild what `to_json` gave; of the unread operations those that it names.

        :param data: what the file holds
        :param url: the file's own
        """
        target, _, place = url.rpartition(f"/{MANIFESTS}/")
        return cls(
            target=target,
            file_format=FileFormat(data["format"]),
            name=place.removesuffix(".json"),
            tables={
                name: WrittenTable(tuple(f"{path}" for path in table["paths"]), int(table["rows"]))
                for name, table in data["tables"].items()
            },
            operations=data["operations"],
            identical_channels=data["identical_channels"],
            unread=tuple(Unread(one, reason) for one, reason in data["unread"]["operations"].items()),
        )


def name_after(operation_ids: Collection[str]) -> str:
    """Name a manifest after what is in it: the same operations, in whatever order, have the same name."""
    if len(operation_ids) == 1:
        return stem(next(iter(operation_ids)))
    return f"batch-{_hash(chr(10).join(sorted(operation_ids)))}"


def stem(operation_id: str) -> str:
    """Return what an operation's files are called, without their ending: its id, where that can be a file's name."""
    fitting = re.sub(r"[^A-Za-z0-9_.-]", "_", operation_id).lstrip("_.")
    if fitting == operation_id and len(fitting) <= _LONGEST_STEM:
        return fitting
    # Two ids must not become one name.
    return f"{fitting[:_LONGEST_STEM]}-{_hash(operation_id)}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
