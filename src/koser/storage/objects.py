"""Objects in a store: how large they are, their bytes, what lies below a prefix.

Nothing here trusts a driver to notice that a body ended too early: what came is counted
against the size that the store told before.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koser.errors import ObjectError, StorageError
from koser.storage.drivers import filesystem
from koser.storage.faults import Kind, find_fault
from koser.storage.places import Place, is_url
from koser.storage.retrying import FEW, TruncatedError, retrying

if TYPE_CHECKING:
    from hashlib import _Hash

# Bytes asked for at once: what is in memory of an object, and what one fault costs.
_CHUNK = 2**23
# What changes when an object is replaced, in the words of one driver or another.
_VERSION_KEYS = (
    "size",
    "ETag",
    "etag",
    "LastModified",
    "mtime",
    "updated",
    "generation",
    "created",
)


@dataclass(frozen=True)
class ObjectInfo:
    """What a store says of an object before its bytes are read.

    Attributes
    ----------
    url : str
        The object.
    size : int
        Bytes.
    version : tuple[str, ...]
        Differs if the object has been replaced.
    """

    url: str
    size: int
    version: tuple[str, ...]


class Spool:
    """An object's bytes on this machine's disk, for as long as this lives.

    The file has no name in any folder: a process that is killed leaves nothing behind.

    Parameters
    ----------
    url : str
        What it is a copy of.

    Attributes
    ----------
    url : str
        What it is a copy of.

    Raises
    ------
    StorageError
        If there is no folder for temporary files.
    """

    def __init__(self, url: str) -> None:
        import hashlib
        import tempfile

        self.url = url
        self._digest = hashlib.sha256()
        try:
            self._descriptor, name = tempfile.mkstemp(prefix="koser-")
        except OSError as error:
            raise self._refusal(error) from error
        self._finalizer = weakref.finalize(self, os.close, self._descriptor)
        os.unlink(name)

    @property
    def path(self) -> str:
        """A path to open in this process, read from its start."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)  # opened again, macOS shares the position
        return f"/dev/fd/{self._descriptor}"

    @property
    def digest(self) -> _Hash:
        """SHA-256 of the bytes, to go on with."""
        return self._digest.copy()

    def write(self, content: bytes) -> None:
        """Append bytes.

        Raises
        ------
        StorageError
            If the disk is full.
        """
        self._digest.update(content)
        view = memoryview(content)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: OSError) -> StorageError:
        return StorageError(
            f"Cannot keep a copy of '{self.url}': {error.strerror}. Make room, or set TMPDIR to a "
            f"folder that has some."
        )

    def extend_to(self, size: int) -> None:
        """Make it `size` bytes long, with a hole at its end that takes no space."""
        os.truncate(self._descriptor, size)

    def close(self) -> None:
        """Give the disk's space back; else it is when nothing refers to this any more."""
        self._finalizer()


def look_up(url: str) -> ObjectInfo:
    """What the store says of an object.

    Raises
    ------
    ObjectError
        If there is none, it is a folder, or it may not be read.
    StorageError
        If storage cannot be used.
    """
    driver, path = filesystem(url)
    found = retrying(lambda: _info(driver, path), url, "read")
    if found.get("type") == "directory":
        raise ObjectError(f"'{url}' is a folder. Give one of the objects below it.")
    if found.get("size") is None:
        raise ObjectError(
            f"The server of '{url}' does not say how large it is, so nobody could tell whether all "
            f"of it came. Copy it to a disk or a bucket."
        )
    version = tuple(str(found[key]) for key in _VERSION_KEYS if key in found)
    return ObjectInfo(url, int(found["size"]), version)


def read_range(info: ObjectInfo, start: int, end: int) -> bytes:
    """Bytes `start` to `end` of an object, all of them.

    Raises
    ------
    ObjectError
        If they cannot be had, or fewer come in every attempt.
    StorageError
        If storage cannot be used.
    """
    driver, path = filesystem(info.url)
    # The last range asks for a byte more than there should be: an object that has grown shows.
    end = min(end, info.size)
    asked = end + (end == info.size)

    def call() -> bytes:
        content: bytes = driver.cat_file(path, start=start, end=asked)
        if len(content) != end - start:
            raise TruncatedError(
                f"{len(content):,} bytes came where {end - start:,} should: cut off, or replaced "
                f"while it was read"
            )
        return content

    return retrying(call, info.url, "read") if end > start else b""


def fetch(url: str, info: ObjectInfo | None = None) -> Spool:
    """Copy an object to this machine's disk, a few MiB of it in memory at a time.

    Parameters
    ----------
    url : str
        The object.
    info : ObjectInfo, optional
        What `look_up` said of it, if that is known.

    Raises
    ------
    ObjectError
        If it cannot be had, or changes while it is read.
    StorageError
        If storage cannot be used, or the disk is full.
    """
    info = look_up(url) if info is None else info
    spool = Spool(url)
    try:
        for start in range(0, info.size, _CHUNK):
            content = read_range(info, start, start + _CHUNK)
            spool.write(content)
        if info.size > _CHUNK and look_up(url) != info:
            raise ObjectError(f"'{url}' was replaced while it was read. Run the same again.")
    except BaseException:
        spool.close()
        raise
    return spool


@contextmanager
def local_file(place: Place) -> Iterator[Path]:
    """A path to read `place` from: itself, or a copy of the object that lasts for the block.

    Raises
    ------
    StorageError
        As `fetch`, for a URL.
    """
    if not is_url(place):
        yield Path(place)
        return
    spool = fetch(str(place))
    try:
        yield Path(spool.path)
    finally:
        spool.close()


def is_folder(url: str) -> bool:
    """Whether there is something below `url`, and no object of that name.

    Raises
    ------
    StorageError
        If storage cannot be used. What is not there, or not to be seen, is no folder.
    """
    driver, path = filesystem(url)
    try:
        return bool(retrying(lambda: _info(driver, path), url, "read").get("type") == "directory")
    except ObjectError:
        return False


def list_objects(root: str) -> list[str]:
    """The URL of every object below a prefix, as the store orders them.

    Raises
    ------
    StorageError
        If it cannot be listed to its end.
    """
    driver, path = filesystem(root, is_patient=True)
    names = retrying(lambda: driver.find(path), root, "listed", retries=FEW)
    stem = path.rstrip("/")
    return [
        f"{root.rstrip('/')}/{name.removeprefix(stem).lstrip('/')}"
        for name in names
        if name.rstrip("/") != stem
    ]


def _info(driver: Any, path: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = driver.info(path)
    except Exception as error:  # raised again, or what explains it is
        if find_fault(error).kind in (Kind.refused, Kind.other):
            # The answer to HEAD has no body, where a service would say whether it is the
            # credentials or this object.
            driver.cat_file(path, start=0, end=1)
        raise
    return found
