"""The features of a manifest, and of its train part also at other speeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from koser.data.manifest import Manifest
from koser.engines.engine import Engine
from koser.engines.local import SERIAL
from koser.features.extraction import (
    BatchExtractor,
    Extractor,
    Progress,
    clips_of,
    extract,
    extract_in_batches,
)
from koser.features.store import KEY_SIZE, FeatureStore
from koser.training.ranks import ALONE, Ranks


@dataclass(frozen=True)
class StoredVariants:
    """Where a manifest's features lie, in one or several variants.

    Attributes
    ----------
    store_root : Path
        Folder of the stores.
    descriptions : tuple[dict[str, object], ...]
        Each variant's front-end; the plain one first.
    keys : np.ndarray [shape=(n_variants, n_utterances), dtype=S16]
        Where each utterance lies in each store; blank where a variant was not made.
    dtype : str
        NumPy type of the features.
    """

    store_root: Path
    descriptions: tuple[dict[str, object], ...]
    keys: np.ndarray
    dtype: str = "float32"

    def open(self) -> tuple[FeatureStore, ...]:
        """The stores, one per variant."""
        return tuple(
            FeatureStore(self.store_root, each, dtype=self.dtype) for each in self.descriptions
        )


def extract_variants(
    manifest: Manifest,
    extractors: Sequence[Extractor | BatchExtractor],
    *,
    train_rows: np.ndarray,
    store_root: Path,
    engine: Engine = SERIAL,
    progress: Progress | None = None,
    ranks: Ranks = ALONE,
) -> StoredVariants:
    """Extract every utterance with the first front-end, the train part with the others too.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    extractors : Sequence[Extractor or BatchExtractor]
        The plain front-end first.
    train_rows : np.ndarray
        The train part.
    store_root : Path
        Folder of the stores.
    engine : Engine
        Where it is done; the result does not depend on it.
    progress : Progress, optional
        Called with the clips done so far, over all variants, and their total.
    ranks : Ranks
        The first one extracts; the others, which must see the same stores, wait.
    """

    def extract_all() -> np.ndarray:
        return _extract_all(
            manifest, extractors, train_rows, store_root, engine=engine, progress=progress
        )

    dtypes = [each.dtype for each in extractors if isinstance(each, BatchExtractor)]
    return StoredVariants(
        store_root,
        tuple(extractor.describe() for extractor in extractors),
        ranks.array_from_first(extract_all),
        dtypes[-1] if dtypes else "float32",
    )


def _extract_all(
    manifest: Manifest,
    extractors: Sequence[Extractor | BatchExtractor],
    train_rows: np.ndarray,
    store_root: Path,
    *,
    engine: Engine,
    progress: Progress | None,
) -> np.ndarray:
    """The keys of every variant, when all are extracted; see `StoredVariants.keys`."""
    clips = clips_of(manifest.table)
    durations = manifest.table["duration"].to_numpy()
    keys = np.zeros((len(extractors), len(clips)), f"S{KEY_SIZE}")
    total = len(clips) + (len(extractors) - 1) * len(train_rows)
    done = 0
    for variant, extractor in enumerate(extractors):
        rows = np.arange(len(clips)) if variant == 0 else train_rows
        chosen = [clips[row] for row in rows]
        shown = None if progress is None else _shifted(progress, done, total)
        if isinstance(extractor, BatchExtractor):
            keys[variant, rows] = extract_in_batches(
                chosen, durations[rows], extractor, store_root, engine=engine, progress=shown
            )
        else:
            keys[variant, rows] = extract(
                chosen, extractor, store_root, engine=engine, progress=shown
            )
        done += len(rows)
    return keys


def all_speeds(speeds: Sequence[float]) -> tuple[float, ...]:
    """Speeds at which the train part is heard: as recorded first, then the others."""
    return (1.0, *(speed for speed in speeds if speed != 1.0))


def _shifted(progress: Progress, offset: int, total: int) -> Progress:
    return lambda done, _: progress(offset + done, total)
