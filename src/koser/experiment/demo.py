"""The demo: the whole main job on the corpus that ships with koser, which is synthetic."""

from __future__ import annotations

from pathlib import Path

from koser.data.corpora.table import prepare
from koser.data.manifest import Manifest
from koser.demo import TABLE_NAME, corpus_folder
from koser.experiment.request import TrainRequest

# Two hundred clips need fewer epochs than a corpus, and a newcomer no more than a minute.
_OVERRIDES = ("train.epochs=30",)


def prepare_demo(folder: Path) -> tuple[Manifest, TrainRequest]:
    """Write the demo's manifest into `folder`.

    Parameters
    ----------
    folder : Path
        Where ``manifest.parquet`` is put.

    Returns
    -------
    manifest : Manifest
        The synthetic corpus.
    request : TrainRequest
        MFCC + CNN on it, speaker-independent.
    """
    manifest = prepare(corpus_folder() / TABLE_NAME, is_synthetic=True)
    path = folder / "manifest.parquet"
    manifest.write(path)
    request = TrainRequest(model="mfcc", split="speaker", manifest=path, overrides=_OVERRIDES)
    return manifest, request
