"""Unpack a zip file: only into its folder, only whole."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from koser.data.download import Progress
from koser.errors import DownloadError

_CHUNK = 2**20  # bytes
# What a damaged archive makes `zipfile` raise.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


def is_sound(archive: Path) -> bool:
    """Whether `archive` is a zip file all of whose checksums are right."""
    try:
        with zipfile.ZipFile(archive) as zipped:
            return zipped.testzip() is None
    except _DAMAGE:
        return False


def unpack(
    archive: Path, folder: Path, *, inside: str | None = None, progress: Progress | None = None
) -> int:
    """Unpack the files of a zip into an existing folder.

    Every byte is read, so that each file's checksum in the archive is proven.

    Parameters
    ----------
    archive : Path
        A zip file.
    folder : Path
        Where its files go.
    inside : str, optional
        Only what lies below this path in the archive, a leading folder not counted (GitHub
        puts everything into ``<repository>-<commit>/``).
    progress : Progress, optional
        Called with bytes as they are written.

    Returns
    -------
    int
        Files unpacked.

    Raises
    ------
    DownloadError
        If `archive` is no sound zip, or holds a file that would not stay in `folder` (an
        absolute path, ``..``, a link); nothing of it is then to be used.
    """
    try:
        with zipfile.ZipFile(archive) as zipped:
            members = [
                member
                for member in zipped.infolist()
                if not member.is_dir() and _is_wanted(member.filename, inside)
            ]
            targets = [_target(member, folder, archive) for member in members]
            total, n_done = sum(member.file_size for member in members), 0
            _refuse_small_disk(folder, total)
            for member, target in zip(members, targets, strict=True):
                target.parent.mkdir(parents=True, exist_ok=True)
                with zipped.open(member) as source, target.open("xb") as file:
                    while chunk := source.read(_CHUNK):
                        file.write(chunk)
                        n_done += len(chunk)
                        if progress is not None:
                            progress(n_done, total)
    except _DAMAGE as error:
        raise DownloadError(
            f"'{archive}' is no sound zip file ({str(error).rstrip('.')}). Fetch it again."
        ) from error
    except FileExistsError as error:
        raise DownloadError(
            f"'{archive}' holds '{error.filename}' twice. It is not what was published."
        ) from error
    return len(members)


def _is_wanted(name: str, inside: str | None) -> bool:
    if inside is None:
        return True
    parts, wanted = PurePosixPath(name).parts, PurePosixPath(inside).parts
    return wanted in (parts[: len(wanted)], parts[1 : 1 + len(wanted)])


def _target(member: zipfile.ZipInfo, folder: Path, archive: Path) -> Path:
    """Where a member goes; refused if that is not below `folder`."""
    name = PurePosixPath(member.filename.replace("\\", "/"))
    is_link = stat.S_ISLNK(member.external_attr >> 16)
    has_drive = bool(name.parts) and name.parts[0].endswith(":")
    if is_link or name.is_absolute() or ".." in name.parts or has_drive or not name.parts:
        raise DownloadError(
            f"'{archive}' would write '{member.filename}'{' (a link)' if is_link else ''} outside "
            f"its folder. It is not what was published; do not use it."
        )
    return folder.joinpath(*name.parts)


def _refuse_small_disk(folder: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise DownloadError(
            f"The disk of '{folder}' has {free / 1e9:.1f} GB free, and unpacking needs "
            f"{n_bytes / 1e9:.1f} GB. Make room, or choose another folder with --to."
        )
