"""Which archives below a folder are still packed, and how to unpack them."""

from __future__ import annotations

import os
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence, Set
from itertools import islice
from pathlib import Path, PurePosixPath

from koser.audio.listing import AUDIO_SUFFIXES, find_files
from koser.errors import CorpusError
from koser.storage.places import Place, is_url

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")

_LOOKED_AT = 100  # files of an archive: a compressed tar has to be read up to the last of them
_SHOWN = 3  # archives named in a message

_UNREADABLE = (OSError, EOFError, ValueError, zipfile.BadZipFile, tarfile.TarError, zlib.error)


def still_packed(root: Place) -> list[Path]:
    """The archives below `root` most of whose files are not there, told by names.

    An archive that cannot be looked into counts as packed: better named than passed over.
    There is none where `root` is a file or a URL.

    Raises
    ------
    CorpusError
        If a folder below `root` cannot be listed.
    """
    if is_url(root) or not Path(root).is_dir():
        return []
    archives = find_files(Path(root), ARCHIVE_SUFFIXES)
    if not archives:
        return []
    names = {_name(path) for path in find_files(Path(root), ("",))}
    return [path for path in archives if _is_packed(path, names)]


def name_packed(packed: Sequence[Path]) -> str:
    """Say which archives koser did not read, and the commands that unpack them."""
    commands = "; ".join(
        f"unzip -q '{path}' -d '{path.with_suffix('')}'"
        if path.suffix.lower() == ".zip"
        else f"tar -xf '{path}' -C '{path.parent}'"
        for path in packed[:_SHOWN]
    )
    more = f" and {len(packed) - _SHOWN} more" if len(packed) > _SHOWN else ""
    names = ", ".join(f"'{path}'" for path in packed[:_SHOWN])
    return f"Not unpacked: {names}{more}. koser reads no archives. Run: {commands}"


def nothing_found(what: str, root: Place, advice: str) -> CorpusError:
    """The error for a corpus without what its adapter needs.

    Parameters
    ----------
    what : str
        What is missing, a sentence.
    root : Place
        Where it was looked for.
    advice : str
        What to do if nothing below `root` is packed.
    """
    packed = still_packed(root)
    return CorpusError(f"{what} {name_packed(packed) if packed else advice}")


def _is_packed(archive: Path, names: Set[str]) -> bool:
    try:
        found = [_name(name) in names for name in islice(_files_in(archive), _LOOKED_AT)]
    except _UNREADABLE:
        return True
    return 2 * sum(found) < len(found)


def _files_in(archive: Path) -> Iterator[str]:
    """Names of an archive's files, without what macOS hides among them."""
    names: Iterable[str]
    if archive.suffix.lower() == ".zip":
        with zipfile.ZipFile(archive) as zipped:
            names = [member.filename for member in zipped.infolist() if not member.is_dir()]
        yield from (name for name in names if not _is_hidden(name))
    else:
        with tarfile.open(archive) as tarred:
            names = (member.name for member in tarred if member.isfile())
            yield from (name for name in names if not _is_hidden(name))


def _is_hidden(name: str) -> bool:
    return PurePosixPath(name).name.startswith(".")


def _name(path: str | os.PathLike[str]) -> str:
    """File name as far as unpacking keeps it: sound may have become another format since."""
    name = PurePosixPath(unicodedata.normalize("NFC", os.fspath(path)))
    return name.stem if name.suffix.lower() in AUDIO_SUFFIXES else name.name
