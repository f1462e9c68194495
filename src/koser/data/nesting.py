"""A training's own utterances, split again: to choose settings, or to stack systems.

What the outer split keeps apart, the inner one keeps apart too.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from koser.data.assignment import TEST, TRAIN, VAL
from koser.data.manifest import Manifest
from koser.data.splits import SplitOptions, make_split


class InnerFold(NamedTuple):
    """Rows of the whole manifest, by the part they play in an inner fold."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def inner_protocol(outer: str) -> str:
    """How the utterances of a training are split again, by the protocol of the outer split.

    ``kfold`` keeps speakers or groups whole, whatever the outer protocol is.
    """
    return outer if outer == "speaker+script" else "kfold"


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
