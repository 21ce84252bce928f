"""Files on a disk that appear whole or not at all, and who may read them."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_speechkit.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The end of an unfinished file's name: a process is writing it, or was killed while it did.
UNFINISHED = ".part"


#: Read once, while the process has one thread: it can't be read without setting it.
_UMASK = os.umask(0o077)
os.umask(_UMASK)


def private_mode(given: str | None) -> int:
    """Return the mode of files that hold transcripts: 0640, or less if the umask says so.

    :param given: another mode, in octal; it holds whatever the umask is
    :raises SettingsError: it is not a file's mode, or shuts out the owner
    """
    if not given:
        return 0o640 & ~_UMASK
    if not re.fullmatch("(0o?)?6[0246][0246]", given):
        raise SettingsError(
            f"`archive_mode` is {given!r}, which is not a file's mode", hint="Write it in octal, such as 0640 or 0660"
        )
    return int(given, 8)


def write_file(target: str, data: bytes | Path, file_mode: int | None, *, exclusive: bool = False) -> bool:
    """Write a file, all at once.

    :param data: its bytes, or a file to copy
    :param file_mode: of the file, and by it of new folders; None leaves them to the umask
    :param exclusive: only if there is no such file yet
    :return: whether it was written
    """
    folder = Path(target).parent
    _make_folders(folder, file_mode)
    handle, temporary = tempfile.mkstemp(dir=folder, suffix=UNFINISHED)
    try:
        with os.fdopen(handle, "wb") as file:
            if isinstance(data, Path):
                with data.open("rb") as source:
                    shutil.copyfileobj(source, file)
            else:
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_UMASK if file_mode is None else file_mode)
        if not exclusive:
            os.replace(temporary, target)
        else:
            # Of many processes that link at the same moment one succeeds.
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
    _sync(folder)
    return True


def _make_folders(folder: Path, file_mode: int | None) -> None:
    if file_mode is None:
        folder.mkdir(parents=True, exist_ok=True)
        return
    # Those who may read the files may enter the folder.
    mode = file_mode | (file_mode & 0o444) >> 2
    for path in reversed([folder, *folder.parents]):
        if not path.is_dir():
            with suppress(FileExistsError):
                path.mkdir(mode)
                # The umask may have taken some of it. The group that a folder inherits is kept.
                path.chmod(mode | path.stat().st_mode & stat.S_ISGID)


def _sync(folder: Path) -> None:
    """Make a folder's entries durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network filesystems can't; the file itself is safe.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def files_below(folder: str) -> Iterator[str]:
    """Return the paths of all files below a folder; none if there is no folder. What can't be listed is an error."""

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    for path, _, names in os.walk(folder, onerror=refuse, followlinks=True):
        yield from (os.path.join(path, name) for name in names)
