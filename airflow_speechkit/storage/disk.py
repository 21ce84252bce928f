"""Files on a disk that appear whole or not at all, and who may read them."""

from __future__ import annotations

import errno
import os
import stat
import tempfile

from airflow_speechkit.errors import SettingsError

#: What the name of a file ends in that somebody is writing, or was killed while writing.
UNFINISHED = ".part"


def _current_umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


#: Read once, while the process has one thread: there is no way to read it without setting it.
_UMASK = _current_umask()


def private_mode(named: str | None) -> int:
    """Return the mode of files that hold what was said: 0640, or less where the umask says so.

    :param named: another one, in octal; it holds whatever the umask is
    :raises SettingsError: it is none, or shuts out the owner
    """
    if not named:
        return 0o640 & ~_UMASK
    try:
        mode = int(named, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o666 or mode & 0o600 != 0o600 or mode & 0o111:
        raise SettingsError(
            f"`archive_mode` is {named!r}, which can't be a file's mode",
            hint="Write one in octal, such as 0640 or 0660",
        )
    return mode


def make_folders(folder: str, file_mode: int | None) -> None:
    """Make a folder and those above it; those that are there stay as they are.

    :param file_mode: of the files that come into it: whoever may read those may enter; None leaves it to the umask
    """
    if file_mode is None:
        os.makedirs(folder, exist_ok=True)
        return
    if not folder or os.path.isdir(folder):
        return
    make_folders(os.path.dirname(folder), file_mode)
    mode = file_mode | (file_mode & 0o444) >> 2
    try:
        os.mkdir(folder, mode)
    except FileExistsError:
        return
    # The umask may have taken some of it; what a folder has from the one above, its group, stays.
    os.chmod(folder, mode | stat.S_IMODE(os.stat(folder).st_mode) & stat.S_ISGID)


def write_beside(target: str, data: bytes, file_mode: int | None) -> str:
    """Write a finished file beside the place that it is for; return its path.

    :param file_mode: None leaves it to the umask
    """
    make_folders(os.path.dirname(target), file_mode)
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(target), suffix=UNFINISHED)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_UMASK if file_mode is None else file_mode)
    except BaseException:
        unlink(temporary)
        raise
    return temporary


def move(temporary: str, target: str) -> None:
    """Put a finished file in place of whatever is there."""
    try:
        os.replace(temporary, target)
    except BaseException:
        unlink(temporary)
        raise
    sync(os.path.dirname(target))


def sync(folder: str) -> None:
    """Have a folder's entries survive a crash of the machine."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network filesystems can't; the file itself is safe.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def written_at(path: str) -> float:
    """Return when a file was last written to, in seconds since the epoch; one that is gone never ages."""
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:
        # It was finished, or given up, since it was listed.
        return float("inf")


def unlink(path: str) -> None:
    """Remove a file if it is there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
