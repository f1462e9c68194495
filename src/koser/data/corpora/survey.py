"""A look at the names in a folder, to tell which corpus it is."""

from __future__ import annotations

import heapq
import os
import unicodedata
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from koser.errors import CorpusError

# Names looked at: enough to meet every kind of file, few enough for a slow disk. Of each suffix
# some, so that the few tables of a folder are not lost behind its sound.
MAX_NAMES = 20_000
MAX_NAMES_PER_SUFFIX = 200
MAX_FOLDERS = 5_000

_HEAD_BYTES = 65_536
_N_HEADS = 3


@dataclass(frozen=True)
class Survey:
    """Names below a folder; of large corpora a part of them.

    Attributes
    ----------
    root : Path
        The folder.
    paths : Mapping[str, str]
        Files by their path relative to `root`, with ``/`` and in NFC, the highest folders
        first; each with its path on the disk.
    """

    root: Path
    paths: Mapping[str, str]

    @property
    def names(self) -> Iterable[str]:
        """Relative paths, the highest folders first."""
        return self.paths.keys()

    def matching(self, is_wanted: Callable[[str], object]) -> list[str]:
        """File names (without folders) for which `is_wanted` holds, in order."""
        names = (name.rpartition("/")[2] for name in self.names)
        return [name for name in names if is_wanted(name)]

    def heads(self, suffix: str) -> Iterator[tuple[str, str]]:
        """Yield name and beginning of the first few readable files that end in `suffix`."""
        found = (name for name in self.names if name.lower().endswith(suffix))
        for name, _ in zip(found, range(_N_HEADS), strict=False):
            try:
                with open(self.paths[name], "rb") as file:
                    yield name, file.read(_HEAD_BYTES).decode("utf-8-sig", errors="replace")
            except OSError:
                continue


def survey(root: Path) -> Survey:
    """Look at the names below `root`, folder by folder.

    Of each suffix, at most `MAX_NAMES_PER_SUFFIX` names of a folder count, the first in
    alphabetical order, and `MAX_NAMES` in all. Hidden names are passed over.

    Raises
    ------
    CorpusError
        If `root` is not a folder, or a folder in it cannot be listed.
    """
    if not root.is_dir():
        raise CorpusError(f"No folder at '{root}'. Give the folder that holds the corpus.")
    paths: dict[str, str] = {}
    waiting = deque([str(root)])
    seen: set[tuple[int, int]] = set()  # a link may lead back
    while waiting and len(paths) < MAX_NAMES and len(seen) < MAX_FOLDERS:
        folder = waiting.popleft()
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        files, folders = _listed(folder)
        waiting.extend(folders)
        for path in files[: MAX_NAMES - len(paths)]:
            name = os.path.relpath(path, root).replace(os.sep, "/")
            paths[unicodedata.normalize("NFC", name)] = path
    return Survey(root, paths)


def _listed(folder: str) -> tuple[list[str], list[str]]:
    """The files of `folder` that count, and its folders, each sorted."""
    folders: list[str] = []
    files: dict[str, list[str]] = defaultdict(list)  # by suffix
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append(entry.path)
                else:
                    files[os.path.splitext(entry.name)[1].lower()].append(entry.path)
    except OSError as error:
        raise CorpusError(
            f"Cannot list '{folder}': {error.strerror}. Make it readable or move it away."
        ) from error
    counting = (heapq.nsmallest(MAX_NAMES_PER_SUFFIX, alike) for alike in files.values())
    return sorted(chain.from_iterable(counting)), sorted(folders)
