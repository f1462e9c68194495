"""An ensemble's inner folds of each train part, and what can be done where there can be none."""

from __future__ import annotations

from typing import Any

import numpy as np

from koser.data.assignment import TRAIN, VAL, IntArray
from koser.data.manifest import Manifest
from koser.data.nesting import InnerFold, split_again
from koser.data.splits import Split, SplitOptions
from koser.errors import ConfigError, SplitError
from koser.systems.ensemble_config import InnerOptions

# Numbers of folds that are tried for the advice; more of them multiply the trainings.
_TRIED = range(2, 11)


def inner_folds(
    manifest: Manifest, train: np.ndarray, n_val: int, inner: InnerOptions
) -> list[InnerFold]:
    """The train part of a training, split again.

    Parameters
    ----------
    manifest : Manifest
        All utterances.
    train : np.ndarray [shape=(n_train,)]
        Rows of the train part.
    n_val : int
        Utterances of its val part: inner trainings have as large a share for theirs.
    inner : InnerOptions
        How it is split.

    Raises
    ------
    SplitError
        If it cannot be split so.
    """
    options: dict[str, Any] = {"n_folds": inner.n_folds, "seed": inner.seed}
    if inner.protocol == "speaker+script":
        options["n_script_folds"] = inner.n_script_folds or inner.n_folds
    options["val_fraction"] = n_val / (len(train) + n_val)
    try:
        return split_again(manifest, train, inner.protocol, SplitOptions(**options))
    except SplitError as error:
        raise SplitError(
            f"The {len(train)} utterances that an ensemble trains on cannot be split again into "
            f"{inner.n_folds} inner folds (inner.n_folds). {error}"
        ) from error


def check_inner_folds(manifest: Manifest, split: Split, inner: InnerOptions) -> None:
    """Refuse inner folds that a train part does not allow, and say which all of them do.

    Raises
    ------
    ConfigError
        If a fold of `split` has a train part that cannot be split again.
    """
    parts = split.parts(manifest)
    fold = _impossible_fold(manifest, parts, inner)
    if fold is None:
        return
    rows = np.flatnonzero(parts[fold] == TRAIN)
    by_session = inner.protocol == "session"
    column = "session" if by_session else manifest.grouping_column
    who = ""
    if column is not None:
        n_groups = manifest.table[column].gather(rows).n_unique()
        who = f" of {n_groups} × {'session' if by_session else manifest.provenance.grouping}"
    scripts = ", with their scripts," if inner.protocol == "speaker+script" else ""
    raise ConfigError(
        f"inner.n_folds = {inner.n_folds}: the train part of fold {fold} has {len(rows)} "
        f"utterances{who}, which{scripts} do not go round: every inner fold trains on some, tests "
        f"others and, where the split has a val part, validates on yet others. "
        f"{_advice(manifest, parts, inner)}"
    )


def _impossible_fold(manifest: Manifest, parts: IntArray, inner: InnerOptions) -> int | None:
    for fold, part in enumerate(parts):
        try:
            inner_folds(manifest, np.flatnonzero(part == TRAIN), int((part == VAL).sum()), inner)
        except SplitError:
            return fold
    return None


def _advice(manifest: Manifest, parts: IntArray, inner: InnerOptions) -> str:
    """What works, tried out: too many folds can be the reason, and too few."""
    for outer, beside in ((parts, ""), (np.where(parts == VAL, TRAIN, parts), "--val-fraction 0 ")):
        for n_folds in _TRIED:
            tried = inner.model_copy(update={"n_folds": n_folds})
            if _impossible_fold(manifest, outer, tried) is None:
                return f"What works: {beside}--set inner.n_folds={n_folds}."
    more = {"speaker+script": "speakers and scripts", "session": "sessions"}
    return (
        f"No number from {_TRIED.start} to {_TRIED.stop - 1} works, with or without a val part. "
        f"Train on more {more.get(inner.protocol, 'speakers')}."
    )
