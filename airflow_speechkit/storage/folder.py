"""A folder of files, on a disk or in a bucket, in which a file appears whole or not at all."""

from __future__ import annotations

import math
import os
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_speechkit.errors import StorageError
from airflow_speechkit.retry import RetryPolicy
from airflow_speechkit.storage.disk import UNFINISHED, files_below, write_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fsspec import AbstractFileSystem

#: A store answers 409 while another conditional write of the same key is under way.
CONFLICT_RETRY = RetryPolicy(0.05, 1.6, give_up_failures=6)

_NOT_PERMITTED = (
    "Give the user that the task runs as, or the account of the storage's connection, the right to read, list and "
    "write there (in Object Storage the role `storage.uploader` on the bucket, to remove files `storage.editor`)"
)
_NO_CONDITIONS = (
    "The store refuses writes with `If-None-Match: *`: use a bucket whose store supports conditional writes (Object "
    "Storage and S3 do), or a disk"
)


@dataclass(frozen=True)
class Folder:
    """A root on an fsspec filesystem. Names below it are relative, with ``/`` between their parts.

    Cached listings are never used: s3fs would go on reporting a file as missing that another process has written
    since. What can't be read is an error, never an absence.

    :param fs: the filesystem
    :param root: the folder's path on it
    :param url: how people write it, for messages and manifests (never with credentials)
    :param fault: the error to raise if the store can't be read or written
    :param file_mode: of files on a disk, and by it of new folders; None leaves them to the umask
    """

    fs: AbstractFileSystem
    root: str
    url: str
    fault: type[StorageError] = StorageError
    file_mode: int | None = None

    @classmethod
    def at(cls, path: Any) -> Folder:
        """Open an ``ObjectStoragePath``, any other ``UPath``, a ``pathlib.Path`` or a local path as a string.

        :raises StorageError: the path's filesystem can't be opened: an unknown protocol, a missing connection
        """
        try:
            fs = getattr(path, "fs", None)
        except Exception as error:
            raise StorageError(f"{path} can't be opened: {_reason(error)}") from error
        if fs is not None:
            return cls(fs, path.path.rstrip("/"), str(path).rstrip("/"))
        from fsspec.implementations.local import LocalFileSystem

        local = os.path.abspath(os.fspath(path))
        return cls(LocalFileSystem(), local, local)

    def _is(self, protocol: str) -> bool:
        known = self.fs.protocol
        return protocol in ([known] if isinstance(known, str) else known)

    @property
    def _is_local(self) -> bool:
        return self._is("file")

    def path(self, name: str) -> str:
        """Return the file's path on the filesystem."""
        return f"{self.root}/{name}" if name else self.root

    def url_of(self, name: str) -> str:
        """Return how people write the file's path."""
        return f"{self.url}/{name}" if name else self.url

    def read(self, name: str, *, most_bytes: int | None = None) -> bytes:
        """Return a file's bytes, in one request.

        :param most_bytes: leave out what follows
        :raises FileNotFoundError: there is no such file
        :raises StorageError: the store can't be read
        """
        with self._errors("read", name):
            try:
                # Without a range s3fs first asks for the size, and takes it from a cached listing.
                data: bytes = self.fs.cat_file(self.path(name), start=0, end=most_bytes)
            except OSError as error:
                # An empty file has no range.
                if _http_status(error) != 416:
                    raise
                return b""
            return data

    def exists(self, name: str) -> bool:
        """Tell whether there is such a file now.

        :raises StorageError: the store can't be read
        """
        try:
            self.read(name, most_bytes=1)
        except FileNotFoundError:
            return False
        return True

    def fetch(self, name: str, copy: str) -> str:
        """Return a file's path on this machine: its own on a disk, that of a copy otherwise.

        :param copy: where a copy may be made
        :raises FileNotFoundError: there is no such file
        :raises StorageError: it can't be read
        """
        with self._errors("read", name):
            path = self.path(name)
            if self._is_local:
                os.stat(path)
                return path
            self.fs.get_file(path, copy)
            return copy

    def create(self, name: str, data: bytes) -> bool:
        """Write a file only if there is none; return whether this call wrote it.

        On a disk by a hard link to a finished file, in a bucket by ``If-None-Match: *``: of many calls at the same
        moment at most one returns True. (At most: if a client's own retry finds what its first try wrote, the call
        returns False. Compare the contents where that matters.)

        :raises StorageError: the store can't be written
        """
        target = self.path(name)
        with self._errors("create", name):
            if self._is_local:
                return write_file(target, data, self.file_mode, exclusive=True)
            pauses_s = CONFLICT_RETRY.pauses_s()
            while True:
                try:
                    self.fs.pipe_file(target, data, mode="create")
                    return True
                except OSError as error:
                    status = _http_status(error)
                    if isinstance(error, FileExistsError) or status == 412:
                        return False
                    if status != 409 or (pause_s := next(pauses_s, None)) is None:
                        raise
                time.sleep(pause_s)

    def replace(self, name: str, data: bytes | Path) -> None:
        """Write a file, in place of an existing one, all at once.

        :param data: its bytes, or a finished local file to copy
        :raises StorageError: the store can't be written
        """
        with self._errors("write", name):
            if self._is_local:
                write_file(self.path(name), data, self.file_mode)
            elif isinstance(data, bytes):
                self.fs.pipe_file(self.path(name), data)
            else:
                self.fs.put_file(str(data), self.path(name))

    def names(self, below: str = "") -> Iterator[str]:
        """Return the names of all files below a sub-folder, as they are now, sorted; none if there is no folder.

        :raises StorageError: the listing fails
        """
        yield from self._listed(below)

    def unfinished(self, below: str = "", *, untouched_for: timedelta = timedelta()) -> Iterator[str]:
        """Return the names of unfinished files below a sub-folder: a process is writing them, or was killed.

        `names` leaves them out. Only a disk has them: an object of a bucket is not visible before it is complete.

        :param untouched_for: leave out those that were written to since
        :raises StorageError: the listing fails
        """
        latest = time.time() - untouched_for.total_seconds() if untouched_for else math.inf
        for name in self._listed(below, unfinished=True) if self._is_local else ():
            # One that is finished meanwhile is not unfinished.
            with suppress(FileNotFoundError):
                if os.stat(self.path(name)).st_mtime <= latest:
                    yield name

    def versions(self, below: str) -> list[tuple[str, str, datetime]]:
        """Return of each file below a sub-folder its name, its version (a text), and when it was written.

        :raises StorageError: the listing fails
        """
        found = []
        for name, about in self._listed(below).items():
            with self._errors("list", name):
                about = about or self.fs.info(self.path(name))
            at = about.get("LastModified") or about.get("mtime") or about["created"]
            at = at if isinstance(at, datetime) else datetime.fromtimestamp(at, UTC)
            found.append((name, f"{about['size']} {about.get('ETag') or at.timestamp()}", at))
        return found

    def folders(self, below: str = "") -> Iterator[str]:
        """Return the names of the folders right below a sub-folder, as they are now, sorted.

        :raises StorageError: the listing fails
        """
        path, found = self.path(below), []
        with suppress(FileNotFoundError), self._errors("read", below):
            if self._is_local:
                # Follows links to folders, and reads no entry's size: `fs.ls` takes ten times as long.
                with os.scandir(path) as entries:
                    found = [one.name for one in entries if one.is_dir()]
            else:
                self.fs.invalidate_cache(path)
                listing = self.fs.ls(path, detail=True, refresh=True)
                found = [one["name"].rstrip("/") for one in listing if one["type"] == "directory"]
        yield from sorted(name.rpartition("/")[2] for name in found)

    def delete(self, name: str) -> None:
        """Remove a file if it is there.

        :raises StorageError: it can't be removed
        """
        with suppress(FileNotFoundError), self._errors("remove", name):
            self.fs.rm_file(self.path(name))

    def prune(self, name: str) -> None:
        """Remove a folder if it is empty and can be removed; a bucket has no empty ones."""
        if self._is_local:
            with suppress(OSError):
                os.rmdir(self.path(name))

    def _listed(self, below: str, *, unfinished: bool = False) -> dict[str, dict[str, Any]]:
        """Return the files below a sub-folder by their names, with what a store's listing says about each.

        :param unfinished: return those that are being written instead of the others
        """
        found: dict[str, dict[str, Any]]
        with self._errors("list", below):
            if self._is_local:
                found = {path: {} for path in files_below(self.path(below))}
            elif self._is("s3"):
                # One listing, however deep; with a prefix s3fs neither caches it nor looks for a file of that name.
                found = self.fs.find(self.root, detail=True, **({"prefix": f"{below}/"} if below else {}))
            else:
                self.fs.invalidate_cache(self.path(below))
                found = self.fs.find(self.path(below), detail=True)
        skip = len(self.root) + 1
        return {path[skip:]: found[path] for path in sorted(found) if path.endswith(UNFINISHED) == unfinished}

    @contextmanager
    def _errors(self, verb: str, name: str) -> Iterator[None]:
        """Turn errors into `fault`, except that a file isn't there to ``read`` or ``remove``."""
        try:
            yield
        except Exception as error:
            is_no_bucket = _response(error).get("Error", {}).get("Code") == "NoSuchBucket"
            if isinstance(error, FileNotFoundError) and not is_no_bucket and verb in ("read", "remove"):
                raise
            status, hint = _http_status(error), None
            if isinstance(error, PermissionError) or status in (401, 403):
                hint = _NOT_PERMITTED
            elif verb == "create" and status in (400, 405, 501):
                hint = _NO_CONDITIONS
            raise self.fault(
                f"Can't {verb} {self.url_of(name)}: {_reason(error)}",
                hint=hint,
                retry="fails in the same way until then" if hint else "tries it again",
                retry_can_help=hint is None,
            ) from error


def _response(error: BaseException) -> dict[str, Any]:
    """Return the store's answer, if the error, or the one it was made from, is botocore's."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return response
    return _response(error.__cause__) if error.__cause__ else {}


def _http_status(error: BaseException) -> int | None:
    status: int | None = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        return f"{error.strerror} ({type(error).__name__})"
    text = str(error).split("?", 1)[0]
    return f"{text} ({type(error).__name__})" if text else type(error).__name__
