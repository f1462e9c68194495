"""Files that come into being whole, on this machine or in a store."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from koser.errors import ObjectError, StorageError
from koser.files import replacing
from koser.storage.drivers import put
from koser.storage.objects import is_folder, look_up
from koser.storage.places import Place, is_url, name_of
from koser.storage.retrying import FEW, TruncatedError, retrying


@contextmanager
def writing(place: Place) -> Iterator[Path]:
    """A path to write to; what is there takes its place under `place` if the block succeeds.

    An object appears in a store whole or not at all: it is written on this machine's disk and
    sent when it is complete, in parts if it is large, which are discarded if one fails.

    Raises
    ------
    StorageError
        Before the block, if a store cannot be used; after it, if the file cannot be sent. It is
        then kept, and the message says where.
    """
    if not is_url(place):
        with replacing(Path(place)) as partial:
            yield partial
        return
    import tempfile

    url = str(place)
    check_target(url)
    folder = Path(tempfile.mkdtemp(prefix="koser-"))
    is_kept = False
    try:
        file = folder / name_of(url)
        yield file
        try:
            send(file, url)
        except StorageError as error:
            is_kept = True
            raise type(error)(f"{error} What should be there is kept in '{file}'.") from error
    finally:
        if not is_kept:
            shutil.rmtree(folder, ignore_errors=True)


def check_target(url: str) -> None:
    """Refuse a URL that nothing can be written to, before the work.

    Raises
    ------
    StorageError
        If it names a folder, or the store cannot be used. Whether the credentials may write
        shows when they do.
    """
    if url.endswith("/") or is_folder(url):
        raise ObjectError(f"'{url}' is a folder. Give the name of the object to write too.")


def send(file: Path, url: str) -> None:
    """Copy a file of this machine into a store.

    Raises
    ------
    StorageError
        If it cannot be written.
    """
    size = file.stat().st_size

    def call() -> None:
        put(file, url)
        found = look_up(url).size
        if found != size:
            raise TruncatedError(f"{found:,} of {size:,} bytes arrived")

    retrying(call, url, "written", retries=FEW)


def make_folder_of(place: Place) -> None:
    """Make the folder that a file is to be written into; a store needs none."""
    if not is_url(place):
        Path(place).parent.mkdir(parents=True, exist_ok=True)
