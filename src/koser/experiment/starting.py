"""Where a training starts: a trained model, and whether it has learnt from what is now tested.

A trained model says of whom it has learnt: its checkpoint keeps a hash of every speaker, and its
run folder the ids of all utterances. Equal ids or speakers of two corpora say nothing.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from koser.data.assignment import LEFT_OUT, TEST, TRAIN
from koser.data.leakage import find_leaks
from koser.data.manifest import Manifest
from koser.data.splits import Split
from koser.errors import SplitError
from koser.hashes import sha256_of
from koser.models.checkpoint import Checkpoint, find_checkpoint
from koser.systems.starting import Start

logger = logging.getLogger(__name__)

_ADVICE = (
    "Its scores would be too high. Pre-train on another corpus, or on what this split leaves to "
    "train in every fold."
)


def read_start(place: Path, system: str) -> Start:
    """The trained model to start from.

    Parameters
    ----------
    place : Path
        A run folder, a ``.pth`` from one, or a folder that `koser pull` made.
    system : str
        Name of the system that is to be trained, whose model is taken where a folder has several.

    Raises
    ------
    CheckpointError
        If there is none, or it cannot be read.
    """
    own = place / f"best_model_{system}.pth"
    path = own if own.is_file() else find_checkpoint(place)
    checkpoint = Checkpoint.read(path)
    origin = checkpoint.origin
    split = origin.get("split") or {}
    about = {
        "model": place.resolve().name,
        "sha256": sha256_of(path),
        "system": checkpoint.system,
        "labels": list(checkpoint.labels),
        "corpus": list(origin.get("corpus") or []),
        "label_policy": origin.get("label_policy"),
        "protocol": split.get("protocol"),
        "split_hash": split.get("hash"),
        "fold": origin.get("fold"),
        "seed": origin.get("seed"),
        "is_synthetic": bool(origin.get("is_synthetic")),
        "standardisation": "kept",
        "init": origin.get("init"),
    }
    return Start(checkpoint, about)


def refuse_leaks(start: Start, place: Path, manifest: Manifest, split: Split) -> None:
    """Refuse a start that has learnt from what `split` keeps out of training.

    Utterances of the test part may never have been learnt from. Speakers, groups, sessions and
    scripts may not, where the split itself keeps them apart. What cannot be told is warned of.

    Parameters
    ----------
    start : Start
        The trained model.
    place : Path
        Where it is; beside it may be the split it was trained under.
    manifest : Manifest
        The utterances to train and test on.
    split : Split
        Their parts.

    Raises
    ------
    SplitError
        If test shares something with what the model has learnt from.
    """
    shared = sorted(corpora_of(start.about) & set(manifest.table["corpus"].unique()))
    if not shared:
        return
    parts = split.parts(manifest)
    apart = {leak.kind for leak in find_leaks(manifest, parts) if leak.n_shared == 0}
    ids = _learnt_ids(start, place, shared)
    if ids is not None:
        _refuse_rows(start, manifest, parts, ids, apart)
    known = start.checkpoint.origin.get("learnt_speakers")
    if known is not None:
        heard = _tested_speakers(manifest, parts, frozenset(known))
        if heard and "speaker" in apart:
            raise SplitError(
                f"--init {start.about['model']} has learnt from {len(heard)} speakers of the test "
                f"part ({', '.join(heard[:5])}), and the split keeps speakers apart. {_ADVICE}"
            )
        if not heard:
            return  # nor from any utterance of theirs
    if ids is None:
        logger.warning(
            "--init %s was trained on %s too, and it cannot be told on which utterances: it may "
            "have learnt from the test part. Give the whole run folder to have that checked.",
            start.about["model"],
            ", ".join(shared),
        )


def corpora_of(about: Mapping[str, Any]) -> set[str]:
    """All that a model has learnt from, its own start included, by what is kept about a start."""
    before = about.get("init")
    return set(about["corpus"]) | (corpora_of(before) if before else set())


def learnt_before(description: Mapping[str, Any]) -> set[str]:
    """What a run's model had learnt from before the run, by the content of its ``run.json``."""
    start = description["experiment"].get("init")
    return corpora_of(start) if start else set()


def speaker_keys(manifest: Manifest) -> tuple[str | None, ...]:
    """A hash of the corpus and speaker of each utterance; None where the speaker is unknown.

    The same for a corpus alone and among others, where names have the corpus in front.
    """
    keys: dict[tuple[str, str | None], str | None] = {}
    for pair in manifest.table.select("corpus", "speaker").unique().iter_rows():
        corpus, speaker = pair
        if speaker is None:
            keys[pair] = None
            continue
        text = f"{corpus}\0{speaker.removeprefix(f'{corpus}/')}"
        keys[pair] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return tuple(keys[pair] for pair in manifest.table.select("corpus", "speaker").iter_rows())


def _learnt_ids(start: Start, place: Path, corpora: list[str]) -> set[str] | None:
    """Utterances that the model has learnt from; None where the split is not beside it."""
    if start.about.get("init"):
        return None  # of the model before it nothing is beside it
    folder = place if place.is_dir() else place.parent
    for path in (folder / "split.parquet", folder.parent.parent / "split.parquet"):
        if path.is_file():
            split = Split.read(path)
            if split.hash == start.about["split_hash"] and start.about["fold"] is not None:
                fold = int(start.about["fold"])
                learnt = {*split.ids(fold, "train"), *split.ids(fold, "val")}
                prefixed = {f"{corpus}/{name}" for corpus in corpora for name in learnt}
                bare = {name.removeprefix(f"{corpus}/") for corpus in corpora for name in learnt}
                return learnt | prefixed | bare
    return None


def _refuse_rows(
    start: Start, manifest: Manifest, parts: np.ndarray, ids: set[str], apart: set[str]
) -> None:
    of_corpus = manifest.table["corpus"].is_in(sorted(corpora_of(start.about)))
    is_learnt = (manifest.table["id"].is_in(sorted(ids)) & of_corpus).to_numpy()
    n_tested = int((is_learnt & (parts == TEST).any(axis=0)).sum())
    if n_tested:
        raise SplitError(
            f"--init {start.about['model']} has learnt from {n_tested} utterances of the test "
            f"part. {_ADVICE}"
        )
    before = np.where(is_learnt[None], TRAIN, LEFT_OUT)
    for leak in find_leaks(manifest, np.where(parts == TEST, TEST, before)):
        if leak.kind in apart and leak.n_shared:
            raise SplitError(
                f"--init {start.about['model']} has learnt from {leak.kind}s of the test part "
                f"({leak.describe()}), and the split keeps {leak.kind}s apart. {_ADVICE}"
            )


def _tested_speakers(manifest: Manifest, parts: np.ndarray, known: frozenset[str]) -> list[str]:
    """Those of the test part, in any fold, whose hash is among `known`."""
    is_tested = (parts == TEST).any(axis=0)
    is_known = np.array([key in known for key in speaker_keys(manifest)])
    found: pl.Series = manifest.table["speaker"].filter(pl.Series(is_tested & is_known))
    return found.unique().sort().to_list()
