"""Features ahead of training: fill the store with what a system will ask of it."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from koser.config import Config
from koser.data.manifest import Manifest
from koser.features.extraction import Progress
from koser.systems import system_class


@dataclass(frozen=True)
class Extraction:
    """What an extraction came to.

    Attributes
    ----------
    n_clips : int
        Utterances of the manifest.
    audio_seconds : float
        Their sound, each heard once.
    seconds : float
        Time taken.
    store_root : Path
        Folder of the feature stores.
    store_bytes : int
        Size of all that is in it.
    added_bytes : int
        How much of that is new; 0 where everything was there already.
    """

    n_clips: int
    audio_seconds: float
    seconds: float
    store_root: Path
    store_bytes: int
    added_bytes: int

    @property
    def speed(self) -> float:
        """Seconds of sound per second, "× real time"."""
        return self.audio_seconds / self.seconds


def extract_features(
    model: str,
    manifest: Manifest,
    config: Config,
    *,
    store_root: Path,
    n_workers: int = 1,
    progress: Progress | None = None,
) -> Extraction:
    """Make all features that a system trains and tests on; what the store has is not made again.

    Every utterance may turn out to train, so each gets its augmented copies too.

    Parameters
    ----------
    model : str
        Name of the system.
    manifest : Manifest
        The utterances.
    config : Config
        The system's configuration.
    store_root : Path
        Folder of the feature stores.
    n_workers : int
        Processes.
    progress : Progress, optional
        Called after each clip.

    Raises
    ------
    AudioError
        If clips cannot be read; all others are in the store then.
    StoreError
        If the store cannot be written.
    """
    before = _bytes_below(store_root)
    started = time.perf_counter()
    system_class(model).extract(
        manifest,
        config,
        train_rows=np.arange(len(manifest)),
        store_root=store_root,
        n_workers=n_workers,
        progress=progress,
    )
    seconds = time.perf_counter() - started
    after = _bytes_below(store_root)
    return Extraction(
        n_clips=len(manifest),
        audio_seconds=float(manifest.table["duration"].sum()),
        seconds=seconds,
        store_root=store_root,
        store_bytes=after,
        added_bytes=after - before,
    )


def _bytes_below(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # another process writes there too
            size += path.stat().st_size if path.is_file() else 0
    return size
