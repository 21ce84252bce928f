"""A folder of files, on a disk or in a bucket, in which a file appears whole or not at all."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_speechkit.errors import StorageError
from airflow_speechkit.retry import RetryPolicy
from airflow_speechkit.storage.disk import UNFINISHED, files_below, remove_empty, write_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fsspec import AbstractFileSystem

#: A store answers 409 while another conditional write of the same key is under way.
CONFLICT_RETRY = RetryPolicy(0.05, 1.6, give_up_failures=6)


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
        return protocol == known if isinstance(known, str) else protocol in known

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
        with self._faults("read", name, missing_is_an_answer=True):
            try:
                # Without a range s3fs first asks for the size, and believes a cached listing for it.
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
        if self._is_local and os.path.isdir(self.path(name)):
            return False
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
        with self._faults("read", name, missing_is_an_answer=True):
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
        with self._faults("write", name, exclusive=True):
            if self._is_local:
                return write_file(target, data, self.file_mode, exclusive=True)
            for pause_s in (*CONFLICT_RETRY.pauses_s(), None):
                try:
                    self.fs.pipe_file(target, data, mode="create")
                except FileExistsError:
                    return False
                except OSError as error:
                    status = _http_status(error)
                    if status == 412:
                        return False
                    if status != 409 or pause_s is None:
                        raise
                    time.sleep(pause_s)
                else:
                    return True
            raise AssertionError

    def replace(self, name: str, data: bytes) -> None:
        """Write a file, in place of an existing one, all at once.

        :raises StorageError: the store can't be written
        """
        with self._faults("write", name):
            if self._is_local:
                write_file(self.path(name), data, self.file_mode)
            else:
                self.fs.pipe_file(self.path(name), data)

    def put(self, name: str, finished: Path) -> None:
        """Copy a finished local file to its place, all at once.

        :raises StorageError: the store can't be written
        """
        with self._faults("write", name):
            if self._is_local:
                write_file(self.path(name), finished, self.file_mode)
            else:
                self.fs.put_file(str(finished), self.path(name))

    def names(self, below: str = "") -> Iterator[str]:
        """Return the names of all files below a sub-folder, as they are now, sorted; none if there is no folder.

        :raises StorageError: the listing fails
        """
        yield from (name for name in self._listed(below) if not name.endswith(UNFINISHED))

    def unfinished(self, below: str = "", *, untouched_for: timedelta = timedelta()) -> Iterator[str]:
        """Return the names of unfinished files below a sub-folder: somebody writes them, or was killed meanwhile.

        `names` leaves them out. Only a disk has them: an object of a bucket is not visible before it is complete.

        :param untouched_for: leave out those that were written to since
        :raises StorageError: the listing fails
        """
        if not self._is_local:
            return
        latest = time.time() - untouched_for.total_seconds()
        for name in self._listed(below):
            if name.endswith(UNFINISHED):
                # One that is finished meanwhile is not unfinished.
                at = self._written_at(name) if untouched_for else 0.0
                if at is not None and at <= latest:
                    yield name

    def _written_at(self, name: str) -> float | None:
        try:
            return os.stat(self.path(name)).st_mtime
        except FileNotFoundError:
            return None

    def versions(self, below: str) -> list[tuple[str, str, datetime]]:
        """Return of each file below a sub-folder its name, its version (a text), and when it was written.

        :raises StorageError: the listing fails
        """
        found = []
        for name, about in self._listed(below, detail=True).items():
            if name.endswith(UNFINISHED):
                continue
            with self._faults("list", name):
                if self._is_local:
                    about = self.fs.info(self.path(name))
                at = about.get("LastModified") or about.get("mtime") or about["created"]
                at = at if isinstance(at, datetime) else datetime.fromtimestamp(at, UTC)
                found.append((name, f"{about['size']} {about.get('ETag') or at.timestamp()}", at))
        return found

    def folders(self, below: str = "") -> Iterator[str]:
        """Return the names of the folders right below a sub-folder, as they are now, sorted.

        :raises StorageError: the listing fails
        """
        path = self.path(below)
        with self._faults("list", below):
            try:
                if self._is_local:
                    with os.scandir(path) as entries:
                        found = [one.name for one in entries if one.is_dir()]
                else:
                    self.fs.invalidate_cache(path)
                    entries_there = self.fs.ls(path, detail=True, refresh=True)
                    found = [one["name"].rstrip("/") for one in entries_there if one["type"] == "directory"]
            except FileNotFoundError as error:
                if _is_no_bucket(error):
                    raise
                found = []
        yield from sorted(one.rsplit("/", 1)[-1] for one in found)

    def delete(self, name: str) -> None:
        """Remove a file if it is there.

        :raises StorageError: it can't be removed
        """
        try:
            with self._faults("remove", name, missing_is_an_answer=True):
                self.fs.rm_file(self.path(name))
        except FileNotFoundError:
            return

    def prune(self, name: str) -> None:
        """Remove a folder if it is empty; a bucket has no empty ones.

        :raises StorageError: it can't be removed
        """
        if self._is_local:
            with self._faults("remove", name):
                remove_empty(self.path(name))

    def _listed(self, below: str, *, detail: bool = False) -> dict[str, dict[str, Any]]:
        """Return all files below a sub-folder, by their names, and what the store's listing says about each."""
        found: Any
        with self._faults("list", below):
            if self._is_local:
                found = list(files_below(self.path(below)))
            elif self._is("s3"):
                # One listing, however deep; with a prefix s3fs neither caches it nor looks for a file of that name.
                found = self.fs.find(self.root, detail=detail, **({"prefix": f"{below}/"} if below else {}))
            else:
                self.fs.invalidate_cache(self.path(below))
                found = self.fs.find(self.path(below), detail=detail)
            found = found if isinstance(found, dict) else {path: {} for path in found}
        skip = len(self.root) + 1
        return {path[skip:]: found[path] for path in sorted(found)}

    @contextmanager
    def _faults(
        self, verb: str, name: str, *, missing_is_an_answer: bool = False, exclusive: bool = False
    ) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if missing_is_an_answer and isinstance(error, FileNotFoundError) and not _is_no_bucket(error):
                raise
            what = f"Can't {verb} {self.url_of(name)}: {_reason(error)}"
            status = _http_status(error)
            if isinstance(error, PermissionError) or status in (401, 403):
                hint = "Give the user that the task runs as the right to read and write there"
                if self._is("s3"):
                    hint = (
                        "Give the account of the storage's connection the right to read, list and write there (in "
                        "Object Storage the role `storage.uploader` on the bucket, to remove files `storage.editor`)"
                    )
                raise self.fault(
                    what, hint=hint, retry="fails in the same way until then", retry_can_help=False
                ) from error
            if exclusive and status in (400, 405, 501):
                raise self.fault(
                    f"{what} (HTTP {status} to a write with `If-None-Match: *`)",
                    hint="Use a bucket whose store supports conditional writes (Object Storage and S3 do), or a disk",
                    retry="fails in the same way",
                    retry_can_help=False,
                ) from error
            raise self.fault(what, retry="tries it again") from error


def _response(error: BaseException) -> dict[str, Any]:
    """Return the store's answer, if the error, or the one it was made from, is botocore's."""
    seen: BaseException | None = error
    while seen is not None:
        response = getattr(seen, "response", None)
        if isinstance(response, dict):
            return response
        seen = seen.__cause__
    return {}


def _http_status(error: BaseException) -> int | None:
    status: int | None = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status


def _is_no_bucket(error: BaseException) -> bool:
    return bool(_response(error).get("Error", {}).get("Code") == "NoSuchBucket")


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        return f"{error.strerror} ({type(error).__name__})"
    text = str(error).split("?", 1)[0]
    return f"{text} ({type(error).__name__})" if text else type(error).__name__
