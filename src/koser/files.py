"""Writing files so that nobody ever reads half of one, and locks that end with their holder.

A file is written beside its place, brought onto the disk, and renamed. A process that is
killed loses nothing by that, and leaves at most a hidden file that the next writer of the
same name takes over. The two syncs are for power cuts: without the first a name could stand
for a file whose bytes never arrived, without the second the name itself could be missing.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

logger = logging.getLogger(__name__)

PARTIAL_SUFFIX = ".partial"
# What file systems without locks answer.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` if the block succeeds.

    Whatever happens, a reader of `path` sees the old file or the whole new one, and
    nothing else is left behind, unless this process is killed: see above. A link stays, and
    what it points to is replaced. A pipe or a device stays, too, and is written into.

    Raises
    ------
    OSError
        With `path` as its ``filename``, if the file system refuses.
    """
    if _is_special(path):
        with _passing_on(path) as partial:
            yield partial
        return
    try:
        target = Path(os.path.realpath(path)) if path.is_symlink() else path
        partial, descriptor = _claim(target, _open_file)
        try:
            os.ftruncate(descriptor, 0)  # what a killed writer left
            yield partial
            os.fsync(descriptor)
            os.replace(partial, target)
        except BaseException:
            # Only now, while it is locked: after the renaming the name may be another writer's.
            partial.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        sync_folder(target.parent)
    except OSError as error:
        # A full disk names no file, and nobody has heard of the partial one.
        if error.errno is None or not _is_partial(error.filename):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A new folder to fill, which does not exist yet; it becomes `path` if the block succeeds.

    For what depends on its content alone: if another process has made `path` meanwhile,
    that one stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, descriptor = _claim(path, _open_folder)
    try:
        for left in partial.iterdir():  # by a killed process
            shutil.rmtree(left)
        filled = partial / "new"
        yield filled
        with suppress(OSError):
            os.rename(filled, path)
        if not path.is_dir():
            raise OSError(f"cannot make the folder '{path}'")
        sync_folder(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        os.close(descriptor)


@contextmanager
def locked(path: Path, *, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock that `path` stands for; it ends with this process, however that ends.

    Parameters
    ----------
    path : Path
        An empty file, made if it does not exist. Its holder may remove it.
    on_wait : Callable
        Called if another process has the lock. It may raise; if it returns, the lock is
        waited for.

    Raises
    ------
    OSError
        If the file cannot be made or opened.
    """
    while True:
        with path.open("ab") as file:
            if not take_lock(file):
                on_wait()
                fcntl.flock(file, fcntl.LOCK_EX)
            # The lock of a file that was removed meanwhile keeps nobody out.
            if _is_at(path, file.fileno()):
                yield
                return


def take_lock(file: BinaryIO) -> bool:
    """Lock an open file until it is closed; False if another process has the lock.

    Where the file system has no locks, that is logged, and nobody is kept out.

    Raises
    ------
    OSError
        If it cannot be locked for another reason.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        logger.warning("'%s' cannot be locked: let one process at a time write.", file.name)
    return True


def write_atomically(path: Path, content: bytes) -> None:
    """Write a small file whole."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def copy_atomically(source: Path, path: Path) -> None:
    """Copy a file's content; a reader of `path` sees the old file or the whole new one."""
    with replacing(path) as partial:
        shutil.copyfile(source, partial)


def write_json(values: Mapping[str, Any], path: Path) -> None:
    """Write `values` for people and programs: indented, Korean readable, no NaN."""
    text = json.dumps(values, ensure_ascii=False, indent=2, allow_nan=False)
    write_atomically(path, f"{text}\n".encode())


def reserve(path: Path) -> None:
    """Take the disk space that a sparse file promises.

    Writing to a mapped file ends the process without a word when the disk is full; this
    fails instead, with an error that can be told.

    Raises
    ------
    OSError
        If there is not so much space.
    """
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def sync_folder(folder: Path) -> None:
    """Bring the names in `folder` onto the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems cannot, and need not
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_special(path: Path) -> bool:
    """Whether `path` is, or leads to, something that holds no bytes: a device, a pipe."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))  # a folder refuses by itself


@contextmanager
def _passing_on(path: Path) -> Iterator[Path]:
    """A path to write to; what is there is written into `path` if the block succeeds."""
    # Opened first: a pipe's reader sees its end if the block fails, and does not wait for ever.
    with open(os.open(path, os.O_WRONLY), "wb") as target:
        with tempfile.TemporaryDirectory(prefix="koser-") as folder:
            whole = Path(folder) / path.name
            yield whole
            with whole.open("rb") as source:
                shutil.copyfileobj(source, target)
        target.flush()


def _is_partial(filename: object) -> bool:
    return filename is None or str(filename).endswith(PARTIAL_SUFFIX)


def _open_file(name: Path) -> int:
    return os.open(name, os.O_CREAT | os.O_RDWR, 0o666)


def _open_folder(name: Path) -> int:
    name.mkdir(exist_ok=True)
    return os.open(name, os.O_RDONLY)


def _claim(path: Path, create: Callable[[Path], int]) -> tuple[Path, int]:
    """A name beside `path` that is this writer's alone, and what keeps it so until closed.

    There is one name for every `path`, so that what a killed process leaves is found
    without looking through the folder. Whoever finds it taken by a living writer takes
    another one.
    """
    name = path.with_name(f".{path.name}{PARTIAL_SUFFIX}")
    while True:
        descriptor = create(name)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if not isinstance(error, BlockingIOError):  # without locks nobody uses this name
                with suppress(OSError):
                    name.rmdir() if name.is_dir() else name.unlink()
            name = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}")
            return name, create(name)
        if _is_at(name, descriptor):  # and was not renamed between the two calls
            return name, descriptor
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether `path` still names the open file."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
