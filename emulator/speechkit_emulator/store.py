"""The emulator's state: operations, results, credentials and the clock, in one SQLite file."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

from speechkit_emulator.operation import Operation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS operations (id TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS results (id TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS recordings (id TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS tokens (token TEXT PRIMARY KEY, expires_s REAL NOT NULL);
"""

_PUT_OPERATION = "INSERT INTO operations VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET value = excluded.value"


def _private_file(directory: Path) -> Path:
    """Create the file, readable by its owner only: it contains transcripts and keys."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = directory / "emulator.sqlite"
    file.touch(mode=0o600)
    # SQLite creates its other files with the same mode.
    for kept in directory.glob(file.name + "*"):
        kept.chmod(0o600)
    return file


class Store:
    """A SQLite file that is written before a request is answered.

    :param directory: of the file; None = in memory
    """

    def __init__(self, directory: Path | None) -> None:
        self._db = sqlite3.connect(":memory:" if directory is None else _private_file(directory), isolation_level=None)
        # Committed data is in the kernel and is kept after a kill -9. Only a crash of the machine can lose it, which is
        # not worth an fsync per answer.
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.executescript(_TABLES)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def fact(self, name: str) -> Any:
        """A fact about the emulator; None if it was never stored."""
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def put_fact(self, name: str, value: Any) -> None:
        """Store a fact."""
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))

    def put_operations(self, operations: Iterable[Operation]) -> None:
        """Write operations, all or none of them."""
        rows = [(operation.id, json.dumps(operation.to_json())) for operation in operations]
        self._db.execute("BEGIN")
        try:
            self._db.executemany(_PUT_OPERATION, rows)
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def operations(self) -> Iterator[Operation]:
        """All operations, oldest first."""
        for (value,) in self._db.execute("SELECT value FROM operations ORDER BY rowid"):
            yield Operation.from_json(json.loads(value))

    def put_result(self, result_id: str, value: bytes) -> None:
        """Store a result, as it is sent to clients."""
        self._put_bytes("results", result_id, value)

    def result(self, result_id: str) -> bytes | None:
        """A result; None if it does not exist."""
        return self._bytes("results", result_id)

    def delete_result(self, result_id: str) -> None:
        """Delete a result."""
        self._db.execute("DELETE FROM results WHERE id = ?", (result_id,))

    def put_recording(self, operation_id: str, value: bytes) -> None:
        """Store an inline recording until it is recognised."""
        self._put_bytes("recordings", operation_id, value)

    def recording(self, operation_id: str) -> bytes | None:
        """An inline recording; None if it does not exist."""
        return self._bytes("recordings", operation_id)

    def delete_recording(self, operation_id: str) -> None:
        """Delete an inline recording."""
        self._db.execute("DELETE FROM recordings WHERE id = ?", (operation_id,))

    def put_token(self, token: str, expires_s: float) -> None:
        """Store an IAM token."""
        self._db.execute("INSERT OR REPLACE INTO tokens VALUES (?, ?)", (token, expires_s))

    def token_expiry(self, token: str) -> float | None:
        """The service time at which a token expires; None if it was never issued."""
        row = self._db.execute("SELECT expires_s FROM tokens WHERE token = ?", (token,)).fetchone()
        return None if row is None else float(row[0])

    def revoke_tokens(self) -> int:
        """Revoke all tokens; return their number."""
        return self._db.execute("DELETE FROM tokens").rowcount

    def _put_bytes(self, table: str, name: str, value: bytes) -> None:
        self._db.execute(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", (name, value))  # noqa: S608

    def _bytes(self, table: str, name: str) -> bytes | None:
        row = self._db.execute(f"SELECT value FROM {table} WHERE id = ?", (name,)).fetchone()  # noqa: S608
        return None if row is None else bytes(row[0])
