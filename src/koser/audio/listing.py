"""Which files of a folder are sound."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from koser.errors import CorpusError
from koser.storage.objects import list_objects
from koser.storage.places import Place, is_url

# Sound that libsndfile reads, then sound that it does not: a corpus must not lose files
# unseen because of their kind, so these are listed too and refused by `probe`.
AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au"),
    *(".m4a", ".aac", ".mp4", ".webm", ".wma", ".amr", ".3gp"),
)


def find_files(root: Path, suffixes: Sequence[str]) -> list[Path]:
    """Every file below `root` whose name ends in one of `suffixes`, sorted by path.

    The order does not depend on the disk. Links to folders are followed, except back into
    a folder that is being walked. Hidden names are passed over: macOS leaves ``._name.wav``
    resource forks behind. A dangling link is listed, so that it is reported and not lost.

    Parameters
    ----------
    root : Path
        An existing folder.
    suffixes : Sequence[str]
        Lower-case endings such as ``".wav"``; compared without regard to case.

    Returns
    -------
    list[Path]
        Paths exactly as they are on disk, below `root` as given.

    Raises
    ------
    CorpusError
        If `root` is not a folder, or a folder below it cannot be listed.
    """
    if not root.is_dir():
        raise CorpusError(f"No folder at '{root}'. Give the folder that holds the corpus.")
    try:
        return sorted(Path(path) for path in _walk(str(root), tuple(suffixes), frozenset()))
    except OSError as error:
        raise CorpusError(
            f"Cannot list '{error.filename}': {error.strerror}. Its files would be lost; "
            f"make the folder readable or move it away."
        ) from error


def _walk(
    folder: str, suffixes: tuple[str, ...], ancestors: frozenset[tuple[int, int]]
) -> Iterator[str]:
    status = os.stat(folder)
    identity = (status.st_dev, status.st_ino)
    if identity in ancestors:
        return
    with os.scandir(folder) as entries:
        listed = [entry for entry in entries if not entry.name.startswith(".")]
    for entry in listed:
        if entry.is_dir():
            yield from _walk(entry.path, suffixes, ancestors | {identity})
        elif entry.name.lower().endswith(suffixes):
            yield entry.path


def audio_files(root: Path) -> list[Path]:
    """Every audio file below `root`; see `find_files`."""
    return find_files(root, AUDIO_SUFFIXES)


def audio_urls(root: str) -> list[str]:
    """The URL of every audio object below the prefix `root`, in the order of `audio_files`.

    As in a folder, what a hidden name leads to is passed over. There may be none.

    Raises
    ------
    StorageError
        If the store cannot be listed.
    """
    n_parts = len(root.rstrip("/").split("/"))
    urls = []
    for url in list_objects(root):
        parts = url.split("/")
        is_hidden = any(part.startswith(".") for part in parts[n_parts:])
        if parts[-1].lower().endswith(AUDIO_SUFFIXES) and not is_hidden:
            urls.append(parts)
    return ["/".join(parts) for parts in sorted(urls)]


def audio_in(folder: Place) -> list[str]:
    """Every audio file below a folder, or audio object below a prefix.

    Raises
    ------
    CorpusError
        If a folder cannot be listed.
    StorageError
        If a store cannot be listed.
    """
    if is_url(folder):
        return audio_urls(str(folder))
    return [str(path) for path in audio_files(Path(folder))]


def names_audio(url: str) -> bool:
    """Whether a URL ends as sound does, so that it is no prefix to be searched."""
    return url.lower().endswith(AUDIO_SUFFIXES)
