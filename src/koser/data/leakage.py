"""What a test part shares with what was learnt from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from koser.data.assignment import TEST, TRAIN, VAL, IntArray, codes
from koser.data.manifest import Manifest
from koser.data.scripts import THRESHOLD, cluster_scripts, has_script

MANY_TEXTS = 250_000
CLOSE = 0.8  # Jaccard similarity of texts that are one script among so many


@dataclass(frozen=True)
class Leak:
    """What test shares with train and val, in the fold where it is most.

    Attributes
    ----------
    kind : str
        ``"speaker"``, ``"group"``, ``"session"``, ``"script"`` (near-duplicate texts) or
        ``"text"`` (equal to the letter).
    n_shared : int or None
        How many of them are on both sides; None where the manifest knows none.
    n_utterances : int
        Test utterances that belong to the shared ones.
    fold : int
        The fold that was counted.
    """

    kind: str
    n_shared: int | None
    n_utterances: int = 0
    fold: int = 0

    def describe(self) -> str:
        """The finding in a few words.

        Examples
        --------
        >>> Leak("script", 3, 12, 1).describe(), Leak("session", None).describe()
        ('3, in 12 test utterances (fold 1)', 'not known')
        """
        if self.n_shared is None:
            return "not known"
        if not self.n_shared:
            return "none"
        return f"{self.n_shared:,}, in {self.n_utterances:,} test utterances (fold {self.fold})"


def find_leaks(manifest: Manifest, parts: IntArray) -> tuple[Leak, ...]:
    """Count what test shares with train and val; left-out utterances do not count.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    parts : np.ndarray [shape=(n_folds, n_utterances)]
        Part of each row of `manifest` in every fold, as its place in `PARTS`.
    """
    return tuple(worst_leak(kind, values, parts) for kind, values in _kinds(manifest))


def scripts_of(manifest: Manifest) -> pl.Series:
    """Number of each utterance's script (near-duplicate texts); null where it has no text.

    Beyond `MANY_TEXTS` distinct ones only closer texts are joined: it takes minutes.
    """
    texts = manifest.table["text"].to_list()
    threshold = THRESHOLD if manifest.table["text"].n_unique() <= MANY_TEXTS else CLOSE
    scripts = zip(texts, cluster_scripts(texts, threshold=threshold).tolist(), strict=True)
    known = [script if has_script(text) else None for text, script in scripts]
    return pl.Series("script", known, dtype=pl.Int64)


def _kinds(manifest: Manifest) -> Iterator[tuple[str, pl.Series]]:
    for kind in ("speaker", "group", "session"):
        yield kind, manifest.table[kind]
    yield "script", scripts_of(manifest)
    yield "text", manifest.table["text"]


def worst_leak(kind: str, values: pl.Series, parts: IntArray) -> Leak:
    """Count which `values` test shares with train and val, in the fold where it is most.

    Parameters
    ----------
    kind : str
        What the values are called.
    values : pl.Series
        One per utterance; nulls are no value.
    parts : np.ndarray [shape=(n_folds, n_utterances)]
        As in `find_leaks`.
    """
    if values.null_count() == len(values):
        return Leak(kind, None)
    code = codes(values.drop_nulls())
    n_codes = int(code.max()) + 1
    leaks = []
    for fold, part in enumerate(parts[:, values.is_not_null().to_numpy()]):
        n_learnt = np.bincount(code[(part == TRAIN) | (part == VAL)], minlength=n_codes)
        n_tested = np.bincount(code[part == TEST], minlength=n_codes)
        is_shared = (n_learnt > 0) & (n_tested > 0)
        leaks.append((int(is_shared.sum()), int(n_tested[is_shared].sum()), -fold))
    n_shared, n_utterances, fold = max(leaks)
    return Leak(kind, n_shared, n_utterances, -fold)
