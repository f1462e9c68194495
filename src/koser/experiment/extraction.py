"""Features ahead of training: fill the store with what a system will ask of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from koser.config import Config
from koser.data.manifest import Manifest
from koser.data.stored import StoredManifest
from koser.engines.engine import Engine
from koser.engines.local import SERIAL
from koser.errors import UnreadableError
from koser.features.extraction import Progress
from koser.systems import system_class

# Utterances that a system extracts at once. What is batched with what is decided among them,
# so features of no more than these are those that a training would make, to the last digit.
WINDOW_ROWS = 2**15

# Called with an utterance's id and what is wrong with its file.
OnFailure = Callable[[str, str], None]


@dataclass(frozen=True)
class Extraction:
    """What an extraction came to.

    Attributes
    ----------
    n_clips : int
        Utterances of the manifest.
    n_failed : int
        Those of them that cannot be read.
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
    n_failed: int
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
    manifest: StoredManifest,
    config: Config,
    *,
    store_root: Path,
    engine: Engine = SERIAL,
    on_failure: OnFailure | None = None,
    progress: Progress | None = None,
) -> Extraction:
    """Make all features that a system trains and tests on; what the store has is not made again.

    Every utterance may turn out to train, so each gets its augmented copies too. The
    manifest is gone through in windows: memory does not grow with it.

    Parameters
    ----------
    model : str
        Name of the system.
    manifest : StoredManifest
        The utterances.
    config : Config
        The system's configuration.
    store_root : Path
        Folder of the feature stores.
    engine : Engine
        Where it is done.
    on_failure : OnFailure, optional
        Called for each utterance that cannot be read; the features of all others are made.
    progress : Progress, optional
        Called with utterances done and their total, front-ends counted singly.

    Raises
    ------
    StoreError
        If the store cannot be written.
    """
    before = _bytes_below(store_root)
    started = time.perf_counter()
    audio_seconds, n_done, n_failed = 0.0, 0, 0
    for window in manifest.iter_manifests(WINDOW_ROWS):
        failures = _extract_window(
            model, window, config, store_root, engine, _shown(progress, n_done, manifest, window)
        )
        for identifier, reason in failures.items():
            if on_failure is not None:
                on_failure(identifier, reason)
        n_done += len(window)
        n_failed += len(failures)
        audio_seconds += float(window.table["duration"].sum())
    seconds = time.perf_counter() - started
    after = _bytes_below(store_root)
    return Extraction(
        n_clips=len(manifest),
        n_failed=n_failed,
        audio_seconds=audio_seconds,
        seconds=seconds,
        store_root=store_root,
        store_bytes=after,
        added_bytes=after - before,
    )


def _extract_window(
    model: str,
    window: Manifest,
    config: Config,
    store_root: Path,
    engine: Engine,
    progress: Progress | None,
) -> dict[str, str]:
    """Extract a window, and what is wrong with the utterances that cannot be read, by id."""
    failures: dict[str, str] = {}
    while len(window):
        try:
            system_class(model).extract(
                window,
                config,
                train_rows=np.arange(len(window)),
                store_root=store_root,
                engine=engine,
                progress=progress,
            )
        except UnreadableError as error:
            ids = window.table["id"]
            failures |= {ids[row]: reason for row, reason in error.reasons.items()}
            # The front-ends that come after the one that found them have done nothing yet.
            readable = ~ids.is_in(list(failures))
            window = Manifest(window.table.filter(readable), window.provenance)
        else:
            break
    return failures


def _shown(
    progress: Progress | None, n_before: int, manifest: StoredManifest, window: Manifest
) -> Progress | None:
    """Progress of a window as that of the whole: each front-end counts every utterance anew."""
    if progress is None or len(window) == len(manifest):
        return progress

    def show(done: int, total: int) -> None:
        per_utterance = max(1, total // len(window))
        progress(n_before * per_utterance + done, len(manifest) * per_utterance)

    return show


def _bytes_below(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # another process writes there too
            size += path.stat().st_size if path.is_file() else 0
    return size
