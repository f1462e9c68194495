"""Splits made of others: a training's own utterances split again, and what is left of a split.

A training's own utterances are split again to choose settings, or to stack systems. Speakers are
kept apart, and sentences or sessions where the outer split does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import polars as pl

from koser.data.assignment import TEST, TRAIN, VAL
from koser.data.manifest import Manifest
from koser.data.splits import Split, SplitOptions, make_split
from koser.errors import SplitError


class InnerFold(NamedTuple):
    """Rows of the whole manifest, by the part they play in an inner fold."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def inner_protocol(outer: str) -> str:
    """How the utterances of a training are split again, by the protocol of the outer split.

    ``kfold`` keeps speakers or groups whole, whatever the outer protocol is.
    """
    return outer if outer in ("speaker+script", "session") else "kfold"


def split_again(
    manifest: Manifest, rows: np.ndarray, protocol: str, options: SplitOptions
) -> list[InnerFold]:
    """Inner folds of some rows, each of which is tested in one of them.

    Parameters
    ----------
    manifest : Manifest
        All utterances.
    rows : np.ndarray [shape=(n_rows,)]
        Those that a training may learn from.
    protocol : str
        What `inner_protocol` says.
    options : SplitOptions
        How many folds, of what val part, from which seed.

    Raises
    ------
    SplitError
        If they cannot be split so.
    """
    own = Manifest(manifest.table[rows.tolist()], manifest.provenance)
    return [
        InnerFold(rows[part == TRAIN], rows[part == VAL], rows[part == TEST])
        for part in make_split(own, protocol, options).parts(own)
    ]


def restrict(split: Split, manifest: Manifest) -> Split:
    """What remains of a split where some of its utterances are left out.

    Parameters
    ----------
    split : Split
        Of all utterances.
    manifest : Manifest
        Those that are left.

    Raises
    ------
    SplitError
        If a fold has nothing left to train on, or to test.
    """
    table = split.table.filter(pl.col("id").is_in(manifest.table["id"].implode()))
    n_left_out = split.table["id"].n_unique() - table["id"].n_unique()
    if not n_left_out:
        return split
    left = {(fold, part) for fold, part in table.select("fold", "part").unique().iter_rows()}
    for fold in range(split.n_folds):
        for part in ("train", "test"):
            if (fold, part) not in left:
                raise SplitError(
                    f"The split '{split.protocol}' has nothing left in the {part} part of fold "
                    f"{fold}: {n_left_out} of its utterances are left out. Make another split."
                )
    note = f"{n_left_out} utterances of the split are left out."
    return replace(split, table=table, notes=(*split.notes, note))
