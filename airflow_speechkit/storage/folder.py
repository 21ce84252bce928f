"""A folder of files, on a disk or in a bucket, in which a file appears whole or not at all."""

from __future__ import annotations

import errno
import os
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_speechkit.errors import StorageError
from airflow_speechkit.retry import RetryPolicy
from airflow_speechkit.storage.disk import UNFINISHED, make_folders, move, sync, unlink, write_beside, written_at

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fsspec import AbstractFileSystem

#: A store says 409 while another conditional write of the same key is under way: who won is known a moment later.
CONFLICT_RETRY = RetryPolicy(0.05, 1.6, give_up_failures=6)


@dataclass(frozen=True)
class Folder:
    """A root on an fsspec filesystem. Names below it are relative, with ``/`` between their parts.

    Nothing here believes a cached listing (s3fs would go on saying that a file is missing which another process has
    written since), and what can't be read is an error, never an absence.

    :param fs: the filesystem
    :param root: the folder's path on it
    :param url: how people write it, for messages and manifests (never with credentials)
    :param fault: what is raised where the store can't be read or written
    :param file_mode: of files on a disk, and by it of new folders; None leaves them to the umask
    """

    fs: AbstractFileSystem
    root: str
    url: str
    fault: type[StorageError] = StorageError
    file_mode: int | None = None

    @classmethod
    def at(cls, path: Any) -> Folder:
        """Take an ``ObjectStoragePath``, any other ``UPath``, a ``pathlib.Path`` or a local path as a string.

        :raises StorageError: the path's filesystem can't be had: an unknown protocol, a missing connection
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

    @property
    def _local(self) -> bool:
        return "file" in self._protocols

    @property
    def _s3(self) -> bool:
        return "s3" in self._protocols

    @property
    def _protocols(self) -> tuple[str, ...]:
        protocol = self.fs.protocol
        return (protocol,) if isinstance(protocol, str) else tuple(protocol)

    def path(self, name: str) -> str:
        """Return the file's path on the filesystem."""
        return f"{self.root}/{name}" if name else self.root

    def url_of(self, name: str) -> str:
        """Return how people write the file's path."""
        return f"{self.url}/{name}" if name else self.url

    def read(self, name: str, *, most_bytes: int | None = None) -> bytes:
        """Return a file's bytes, in one request.

        :param most_bytes: leave out what comes behind so many
        :raises FileNotFoundError: there is no such file
        :raises StorageError: it can't be told, or can't be read
        """
        with self._faults("read", name, missing_is_an_answer=True):
            if not self._s3:
                data: bytes = self.fs.cat_file(self.path(name), end=most_bytes)
                return data
            try:
                # Without a range s3fs first asks for the size, and believes a cached listing for it.
                data = self.fs.cat_file(self.path(name), start=0, end=most_bytes)
            except OSError as error:
                if _http_status(error) != 416:
                    raise
                return b""
            return data

    def fetch(self, name: str, copy: str) -> str:
        """Return a file's path on this machine: where it lies on a disk, or that of a copy.

        :param copy: where a copy may be made
        :raises FileNotFoundError: there is no such file
        :raises StorageError: it can't be read
        """
        with self._faults("read", name, missing_is_an_answer=True):
            path = self.path(name)
            if self._local:
                os.stat(path)
                return path
            self.fs.get_file(path, copy)
            return copy

    def create(self, name: str, data: bytes) -> bool:
        """Write a file only where none is; return whether this call wrote it.

        On a disk by a hard link to a finished file, in a bucket by ``If-None-Match: *``: of many at the same
        moment at most one gets True. (At most: where a client's own retry finds what its first try wrote, it gets
        False. Whoever has to know compares what is there with what it wrote.)

        :raises StorageError: the store can't be written
        """
        target = self.path(name)
        with self._faults("write", name, exclusive=True):
            if self._local:
                temporary = write_beside(target, data, self.file_mode)
                try:
                    os.link(temporary, target)
                except FileExistsError:
                    return False
                finally:
                    os.unlink(temporary)
                sync(os.path.dirname(target))
                return True
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
        """Write a file, in place of any that is there, all at once.

        :raises StorageError: the store can't be written
        """
        target = self.path(name)
        with self._faults("write", name):
            if self._local:
                temporary = write_beside(target, data, self.file_mode)
                move(temporary, target)
            else:
                self.fs.pipe_file(target, data)

    def put(self, name: str, finished: Path) -> None:
        """Put a finished local file in place, all at once.

        :raises StorageError: the store can't be written
        """
        target = self.path(name)
        with self._faults("write", name):
            if self._local:
                import shutil

                make_folders(os.path.dirname(target), self.file_mode)
                temporary = f"{target}.{uuid.uuid4().hex}{UNFINISHED}"
                try:
                    shutil.copyfile(finished, temporary)
                except BaseException:
                    unlink(temporary)
                    raise
                move(temporary, target)
            else:
                self.fs.put_file(str(finished), target)

    def names(self, below: str = "") -> Iterator[str]:
        """Give the names of all files below a sub-folder, as they are now, sorted; none where there is no folder.

        :raises StorageError: the listing can't be had
        """
        with self._faults("list", below):
            found = sorted(self._found(below))
        skip = len(self.root) + 1
        for path in found:
            if not path.endswith(UNFINISHED):
                yield path[skip:]

    def versions(self, below: str) -> list[tuple[str, str, datetime]]:
        """Return of each file below a sub-folder its name, what changes when it is written again, and when it was.

        :raises StorageError: the listing can't be had
        """
        skip = len(self.root) + 1
        with self._faults("list", below):
            if self._s3:
                found = self.fs.find(self.root, prefix=f"{below}/", detail=True)
                about = [(path, f"{one['size']} {one['ETag']}", one["LastModified"]) for path, one in found.items()]
            else:
                about = []
                for path in self._found(below):
                    at = self.fs.modified(path)
                    about.append((path, f"{self.fs.size(path)} {at.timestamp()}", at))
        return sorted((path[skip:], version, at) for path, version, at in about if not path.endswith(UNFINISHED))

    def unfinished(self, below: str = "", *, untouched_for: timedelta = timedelta()) -> Iterator[str]:
        """Give the names of all files below a sub-folder that somebody is writing, or was killed while writing.

        `names` leaves them out. Only a disk has them: in a bucket nothing is seen of an object before it is whole.

        :param untouched_for: leave out those that were written to since
        :raises StorageError: the listing can't be had
        """
        if not self._local:
            return
        skip = len(self.root) + 1
        latest = time.time() - untouched_for.total_seconds()
        with self._faults("list", below):
            found = sorted(path for path in self._found(below) if path.endswith(UNFINISHED))
            old = [path for path in found if not untouched_for or written_at(path) <= latest]
        yield from (path[skip:] for path in old)

    def folders(self, below: str = "") -> Iterator[str]:
        """Give the names of the folders right below a sub-folder, as they are now, sorted.

        :raises StorageError: the listing can't be had
        """
        with self._faults("list", below):
            found = sorted(path for path, is_folder in self._entries(self.path(below)) if is_folder)
        for path in found:
            yield path.rstrip("/").rsplit("/", 1)[-1]

    def exists(self, name: str) -> bool:
        """Tell whether there is such a file now.

        :raises StorageError: it can't be told
        """
        path = self.path(name)
        try:
            with self._faults("read", name, missing_is_an_answer=True):
                if self._s3:
                    try:
                        self.fs.cat_file(path, start=0, end=1)
                    except OSError as error:
                        if _http_status(error) != 416:
                            raise
                else:
                    self.fs.invalidate_cache(path)
                    return bool(self.fs.info(path)["type"] != "directory")
        except FileNotFoundError:
            return False
        return True

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
        """Remove a folder if nothing is in it; a bucket has no empty ones.

        :raises StorageError: it can't be removed
        """
        if not self._local:
            return
        with self._faults("remove", name):
            try:
                os.rmdir(self.path(name))
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
                    raise

    def _found(self, below: str) -> Iterator[str]:
        if self._s3:
            # One listing, however deep; with a prefix s3fs neither caches it nor looks for a file of that name.
            prefix = {"prefix": f"{below}/"} if below else {}
            yield from self.fs.find(self.root, **prefix)
            return
        folders = [self.path(below)]
        while folders:
            for path, is_folder in self._entries(folders.pop()):
                if is_folder:
                    folders.append(path)
                else:
                    yield path

    def _entries(self, folder: str) -> Iterator[tuple[str, bool]]:
        # Not fsspec's own walk: it leaves out what it isn't allowed to read.
        try:
            if self._local:
                with os.scandir(folder) as entries:
                    yield from [(entry.path, entry.is_dir(follow_symlinks=True)) for entry in entries]
            else:
                self.fs.invalidate_cache(folder)
                for entry in self.fs.ls(folder, detail=True, refresh=True):
                    yield entry["name"], entry["type"] == "directory"
        except FileNotFoundError as error:
            if _no_bucket(error):
                raise

    @contextmanager
    def _faults(
        self, verb: str, name: str, *, missing_is_an_answer: bool = False, exclusive: bool = False
    ) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if missing_is_an_answer and isinstance(error, FileNotFoundError) and not _no_bucket(error):
                raise
            what = f"Can't {verb} {self.url_of(name)}: {_reason(error)}"
            if isinstance(error, PermissionError) or _http_status(error) in (401, 403):
                raise self.fault(
                    what,
                    hint="Give the account that the storage's connection names the right to read, list and write there "
                    "(in Object Storage the role `storage.uploader` on the bucket, to remove files `storage.editor`)"
                    if self._s3
                    else "Give the user that the task runs as the right to read and write there",
                    retry="ends in the same way until then",
                    retry_can_help=False,
                ) from error
            if exclusive and _http_status(error) in (400, 405, 501):
                raise self.fault(
                    f"{what} (HTTP {_http_status(error)} to a write with `If-None-Match: *`)",
                    hint="Use a bucket whose store knows conditional writes (Object Storage and S3 do), or a disk",
                    retry="ends in the same way",
                    retry_can_help=False,
                ) from error
            raise self.fault(what, retry="tries it again") from error


def _response(error: BaseException) -> dict[str, Any]:
    """Return what the store answered, where the error, or what it was made from, is botocore's."""
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


def _no_bucket(error: BaseException) -> bool:
    return bool(_response(error).get("Error", {}).get("Code") == "NoSuchBucket")


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        return f"{error.strerror} ({type(error).__name__})"
    text = str(error).split("?", 1)[0]
    return f"{text} ({type(error).__name__})" if text else type(error).__name__
