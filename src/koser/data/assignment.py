"""How whole groups are dealt to parts: the mechanisms that all protocols share.

Groups, labels and scripts are codes: integers from 0, in the order of their names. What
has a code here has an order, so the same seed gives the same parts on any machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

PARTS = ("train", "val", "test", "left_out")
TRAIN, VAL, TEST, LEFT_OUT = range(len(PARTS))

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# Weight of the size of a part where the labels leave the choice open: far below what one
# utterance of a label weighs in a corpus of a million, far above the rounding errors.
_TIE = 1e-9


def codes(values: pl.Series) -> IntArray:
    """Number of each value among the sorted distinct `values`.

    Examples
    --------
    >>> codes(pl.Series(["b", "a", "b"])).tolist()
    [1, 0, 1]
    """
    return values.rank("dense").to_numpy().astype(np.int64) - 1


def shuffled_order(n_groups: int, seed: int) -> IntArray:
    """The order in which the document's rule takes the groups of a corpus."""
    # The document's code seeded numpy globally and shuffled the sorted groups. Only the
    # legacy generator repeats that order.
    order = np.arange(n_groups)
    np.random.RandomState(seed).shuffle(order)
    return order


def take_in_order(
    sizes: IntArray, order: Sequence[int] | IntArray, wanted: Mapping[int, float]
) -> IntArray:
    """Fill one part after the other with whole groups; what is left is train.

    Parameters
    ----------
    sizes : np.ndarray [shape=(n_groups,)]
        Utterances of each group.
    order : Sequence[int]
        The groups, as they are to be taken.
    wanted : Mapping[int, float]
        Part -> share in [0, 1] of all utterances. In this order, each part takes groups
        until it holds at least its share.

    Returns
    -------
    np.ndarray [shape=(n_groups,)]
        Part of each group.

    Examples
    --------
    >>> take_in_order(np.array([5, 3, 1, 1]), [3, 0, 2, 1], {TEST: 0.2, VAL: 0.1}).tolist()
    [2, 0, 1, 2]
    """
    total = int(sizes.sum())
    part = np.full(len(sizes), TRAIN)
    groups = iter(order)
    for code, share in wanted.items():
        held = 0
        while held < share * total and (group := next(groups, None)) is not None:
            part[group] = code
            held += int(sizes[group])
    return part


def assign_stratified(
    groups: IntArray, labels: IntArray, weights: Sequence[float], rng: np.random.Generator
) -> IntArray:
    """Deal whole groups to parts so that each part gets its share of every label.

    Greedy: the largest group first, each to the part where it adds least to the sum of
    (count − wanted)² / wanted over parts and labels (Pearson's χ² distance to the wanted
    counts). Where every utterance is its own group this is Webster's apportionment of
    each label, exact to within one utterance for up to three parts and for equal ones.

    Parameters
    ----------
    groups, labels : np.ndarray [shape=(n_utterances,)]
        Codes of each utterance.
    weights : Sequence[float]
        Wanted share of each part, >= 0, in any unit; a part of weight 0 gets nothing.
    rng : np.random.Generator
        Decides between groups of the same size.

    Returns
    -------
    np.ndarray [shape=(n_groups,)]
        Part of each group, as its place in `weights`.

    Examples
    --------
    >>> groups, labels = np.array([0, 0, 1, 1, 2, 3]), np.array([0, 1, 0, 1, 0, 1])
    >>> parts = assign_stratified(groups, labels, [2, 1], np.random.default_rng(0))
    >>> parts[:2].tolist(), parts[2:].tolist()
    ([0, 1], [0, 0])
    """
    counts = count_table(groups, labels).astype(np.float64)
    sizes = counts.sum(axis=1)
    open_parts = np.flatnonzero(np.asarray(weights) > 0)
    share = np.asarray(weights, dtype=np.float64)[open_parts]
    share /= share.sum()
    # χ² grows by (2·filled + own)·own / wanted, summed over the labels.
    per_wanted = 1 / (share[:, None] * np.maximum(counts.sum(axis=0), 1))
    per_row = _TIE / (share * sizes.sum())
    own = (counts**2) @ per_wanted.T
    filled = np.zeros_like(per_wanted)
    load = np.zeros_like(share)
    order = rng.permutation(len(counts))
    order = order[np.argsort(-sizes[order], kind="stable")]
    chosen = np.empty(len(counts), dtype=np.int64)
    for group in order:
        of_label = counts[group]
        best = int((2 * (filled * of_label).sum(axis=1) + own[group] + load).argmin())
        filled[best] += of_label * per_wanted[best]
        load[best] += sizes[group] * per_row[best]
        chosen[group] = best
    return open_parts[chosen]


def hold_out(
    groups: IntArray | None, labels: IntArray, share: float, rng: np.random.Generator
) -> BoolArray:
    """Choose the validation part of a training pool.

    Parameters
    ----------
    groups : np.ndarray [shape=(n_utterances,)] or None
        Groups to keep whole: in random order, they are taken until they hold at least
        `share`. None: utterances are taken one by one, stratified by label.
    labels : np.ndarray [shape=(n_utterances,)]
        Label code of each utterance of the pool.
    share : float
        Of the pool, in [0, 1); nothing is held out for 0.
    rng : np.random.Generator
        Decides which ones.

    Returns
    -------
    np.ndarray [shape=(n_utterances,)]
        Whether each utterance is held out.
    """
    if groups is None:
        group = np.arange(len(labels))
        part = assign_stratified(group, labels, [1 - share, share], rng)  # train, val
    else:
        names, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        part = take_in_order(sizes, rng.permutation(len(names)), {VAL: share})
    is_held_out: BoolArray = part[group] == VAL
    return is_held_out


def agree_on_scripts(
    part: IntArray, scripts: IntArray, labels: IntArray, rng: np.random.Generator
) -> IntArray:
    """Give every script one part, and leave out the utterances of other parts' groups.

    A script that only one part's groups speak stays there and loses nothing. Of the
    others, the largest first, each goes to the part whose counts it enlarges most in
    relation, label by label. Where everyone reads everything, all parts lose alike and
    keep their proportions; a label with a single script keeps it in the largest part.

    Parameters
    ----------
    part : np.ndarray [shape=(n_utterances,)]
        Part of each utterance's group.
    scripts, labels : np.ndarray [shape=(n_utterances,)]
        Codes of each utterance.
    rng : np.random.Generator
        Decides between scripts of the same size.

    Returns
    -------
    np.ndarray [shape=(n_utterances,)]
        `part` where it is the script's part too, else `LEFT_OUT`.
    """
    per_part = count_table(scripts, part)
    part_of_script = per_part.argmax(axis=1)
    is_shared = (per_part > 0).sum(axis=1) > 1
    shared = np.flatnonzero(is_shared)
    n_parts, n_labels = per_part.shape[1], int(labels.max()) + 1
    cell = part * n_labels + labels
    concerned = is_shared[scripts]
    kept = np.bincount(cell[~concerned], minlength=n_parts * n_labels)
    kept = kept.reshape(n_parts, n_labels).astype(np.float64)
    place = np.cumsum(is_shared) - 1
    counts = count_table(place[scripts[concerned]], cell[concerned], n_parts * n_labels)
    counts = counts.reshape(len(shared), n_parts, n_labels)
    order = rng.permutation(len(shared))
    order = order[np.argsort(-counts.sum(axis=(1, 2))[order], kind="stable")]
    for script in order:
        best = int((counts[script] / (kept + 1)).sum(axis=1).argmax())
        kept[best] += counts[script, best]
        part_of_script[shared[script]] = best
    return np.where(part_of_script[scripts] == part, part, LEFT_OUT)


def crossed_share(parts: IntArray) -> float:
    """How far those who are tested are also learnt from for those they were tested after.

    Parameters
    ----------
    parts : np.ndarray [shape=(n_folds, n_utterances)]
        Part of each utterance in each fold.

    Returns
    -------
    float
        Share of the pairs (tested utterance, one that was learnt from for it), over all folds,
        that are there the other way around as well.

    Examples
    --------
    >>> crossed_share(np.array([[TEST, TRAIN, VAL], [TRAIN, TEST, TRAIN]]))
    0.5
    """
    is_learnt = (parts == TRAIN) | (parts == VAL)
    # [f, g]: utterances tested in fold f that fold g learns from
    tested = np.stack([is_learnt[:, part == TEST].sum(axis=1) for part in parts])
    n_pairs = ((parts == TEST).sum(axis=1) * is_learnt.sum(axis=1)).sum()
    np.fill_diagonal(tested, 0)
    return float((tested * tested.T).sum() / n_pairs) if n_pairs else 0.0


def count_table(rows: IntArray, columns: IntArray, n_columns: int | None = None) -> IntArray:
    """How often each pair of codes occurs [shape=(n_rows, n_columns)]."""
    n_columns = n_columns or int(columns.max()) + 1
    n_rows = int(rows.max()) + 1 if len(rows) else 0
    flat = np.bincount(rows * n_columns + columns, minlength=n_rows * n_columns)
    return flat.reshape(n_rows, n_columns)
