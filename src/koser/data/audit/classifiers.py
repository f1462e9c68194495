"""The simplest classifiers, for probes: a table of frequencies, ridge regression, naive Bayes.

Each learns from some rows and says of others how likely each label is: its belief, which adds
up to 1 over the labels. All labels weigh the same, however often they occur, because what is
asked of them is a UAR.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from koser.data.scripts import normalise_script

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

UNKNOWN = -1  # code of a missing value
MAX_BINS = 12
_ROWS_PER_BIN = 20

_N_GRAMS = (2, 3, 4)  # jamo
_N_HASHES = 2**16
_PRIOR = 1.0  # occurrences of an average n-gram that every label is granted
_MIN_TEXTS = 2
_RIDGE = 1.0


def binned(values: FloatArray, train: IntArray) -> IntArray:
    """Codes of numbers: which quantile of the train rows each falls into, NaN apart.

    Parameters
    ----------
    values : np.ndarray [shape=(n_rows,)]
        Numbers or NaN.
    train : np.ndarray [shape=(n_train,)]
        Rows that decide where the limits are.
    """
    known = values[train]
    known = known[np.isfinite(known)]
    n_bins = int(np.clip(len(known) // _ROWS_PER_BIN, 2, MAX_BINS))
    shares = np.linspace(0, 1, n_bins + 1)[1:-1]
    edges = np.unique(np.quantile(known, shares)) if len(known) else known
    codes = np.searchsorted(edges, values, side="right")
    return np.where(np.isfinite(values), codes, UNKNOWN)


def table_beliefs(codes: IntArray, y: IntArray, train: IntArray, test: IntArray) -> FloatArray:
    """How likely each label is given a test row's value, by its share in the label's train rows.

    With all labels equally likely beforehand this is the best use of one column. Shares lean
    towards those of all labels together; a value that no train row has speaks for no label.

    Parameters
    ----------
    codes : np.ndarray [shape=(n_rows,)]
        Values as numbers from `UNKNOWN`.
    y : np.ndarray [shape=(n_rows,)]
        Labels as numbers from 0.
    train, test : np.ndarray
        Rows.

    Returns
    -------
    np.ndarray [shape=(n_test, n_labels)]
    """
    cells = codes - UNKNOWN
    n_cells, n_labels = int(cells.max()) + 1, int(y.max()) + 1
    flat = np.bincount(cells[train] * n_labels + y[train], minlength=n_cells * n_labels)
    counts = flat.reshape(n_cells, n_labels).astype(np.float64)
    shares = _shares(counts, prior=1.0)
    total = shares.sum(axis=1, keepdims=True)
    # a value without a share in any label: an unknown one where none was learnt from
    even = (counts.sum(axis=0) > 0) / np.count_nonzero(counts.sum(axis=0))
    beliefs: FloatArray = np.where(total > 0, shares / np.where(total > 0, total, 1.0), even)
    return beliefs[cells[test]]


def ridge_beliefs(columns: Sequence[IntArray], y: IntArray, train: IntArray) -> FloatArray:
    """Linear regression of the labels on indicators of all values of all columns.

    Parameters
    ----------
    columns : Sequence[np.ndarray] [shape=(n_rows,)]
        Codes from `UNKNOWN`.
    y : np.ndarray [shape=(n_rows,)]
        Labels as numbers from 0.
    train : np.ndarray
        Rows that are learnt from.

    Returns
    -------
    np.ndarray [shape=(n_rows, n_labels)]
        Linear, so that some are below 0 or above 1.
    """
    blocks = []
    for codes in columns:
        values, places = np.unique(codes, return_inverse=True)
        blocks.append(places[:, np.newaxis] == np.arange(len(values)))
    x = np.hstack(blocks).astype(np.float64)
    n_labels = int(y.max()) + 1
    counts = np.bincount(y[train], minlength=n_labels)
    weight = len(train) / (np.count_nonzero(counts) * counts[y[train]])
    targets = (y[train, np.newaxis] == np.arange(n_labels)).astype(np.float64)
    mean = weight @ x[train] / weight.sum()
    centred = x[train] - mean
    gram = (centred * weight[:, np.newaxis]).T @ centred + _RIDGE * np.eye(x.shape[1])
    slopes = np.linalg.solve(gram, (centred * weight[:, np.newaxis]).T @ targets)
    # the slopes of all labels add up to 0; a label without train rows has none
    beliefs: FloatArray = (x - mean) @ slopes + (counts > 0) / np.count_nonzero(counts)
    return beliefs


@dataclass(frozen=True, eq=False)
class HashedTexts:
    """Texts as sets of hashed jamo n-grams.

    Attributes
    ----------
    text_of_row : np.ndarray [shape=(n_rows,)]
        Which distinct text a row has.
    owners, grams : np.ndarray [shape=(n_occurrences,)]
        Distinct text and hashed n-gram of each occurrence, ordered by text.
    """

    text_of_row: IntArray
    owners: IntArray
    grams: IntArray

    @classmethod
    def of(cls, texts: Sequence[str | None]) -> HashedTexts:
        """Hash `texts`; spacing and punctuation do not count."""
        place: dict[str, int] = {}
        row = [place.setdefault(normalise_script(text or ""), len(place)) for text in texts]
        jamo = [unicodedata.normalize("NFD", text) for text in place]
        # a 0 on both sides, so that the beginning and the end of a text are n-grams too
        joined = "".join(f"\0{text}\0" for text in jamo)
        letters = np.frombuffer(joined.encode("utf-32-le"), np.uint32).astype(np.uint64)
        owner = np.repeat(np.arange(len(jamo)), [len(text) + 2 for text in jamo])
        found = []
        for length in _N_GRAMS:
            n_windows = len(letters) - length + 1
            if n_windows < 1:
                continue
            hashed = np.zeros(n_windows, np.uint64)
            for step in range(length):  # FNV-like: any fixed mixing of the letters will do
                hashed = (hashed ^ letters[step : step + n_windows]) * np.uint64(0x9E3779B97F4A7C15)
            inside = owner[:n_windows] == owner[length - 1 :]
            grams = (hashed >> np.uint64(40)).astype(np.int64) % _N_HASHES
            found.append((owner[:n_windows] * _N_HASHES + grams)[inside])
        # sorted by hand: np.unique hashes whole numbers, which takes ten times as long here
        pairs = np.sort(np.concatenate([np.zeros(0, np.int64), *found]))
        distinct = pairs[np.diff(pairs, prepend=-1) > 0]
        return cls(np.array(row, np.int64), *np.divmod(distinct, _N_HASHES))

    def beliefs(self, y: IntArray, train: IntArray, test: IntArray) -> FloatArray:
        """Naive Bayes over n-grams that train rows have [shape=(n_test, n_labels)]."""
        n_texts, n_labels = int(self.text_of_row.max()) + 1, int(y.max()) + 1
        flat = np.bincount(
            self.text_of_row[train] * n_labels + y[train], minlength=n_texts * n_labels
        )
        per_text = flat.reshape(n_texts, n_labels).astype(np.float64)
        counts: FloatArray = np.stack(
            [
                np.bincount(self.grams, per_text[self.owners, label], _N_HASHES)
                for label in range(n_labels)
            ],
            axis=1,
        )
        # what a single text has says nothing about others
        n_texts_with = np.bincount(
            self.grams[(per_text.sum(axis=1) > 0)[self.owners]], None, _N_HASHES
        )
        counts[n_texts_with < _MIN_TEXTS] = 0.0
        shares = _shares(counts, prior=_PRIOR * np.count_nonzero(counts.sum(axis=1)))
        is_known = counts.sum(axis=1) > 0
        with np.errstate(divide="ignore"):
            logs = np.where(is_known[:, np.newaxis], np.log(shares), 0.0)
        is_asked = np.zeros(n_texts, bool)
        is_asked[self.text_of_row[test]] = True
        chosen = is_asked[self.owners]
        sums: FloatArray = np.stack(
            [
                np.bincount(self.owners[chosen], logs[self.grams[chosen], label], n_texts)
                for label in range(n_labels)
            ],
            axis=1,
        )
        sums[:, per_text.sum(axis=0) == 0] = -np.inf
        likely = np.exp(sums - sums.max(axis=1, keepdims=True))[self.text_of_row[test]]
        beliefs: FloatArray = likely / likely.sum(axis=1, keepdims=True)
        return beliefs


def credits_of(beliefs: FloatArray) -> FloatArray:
    """What each label earns as the answer: 1 for the best one, 1 / k where k share the best.

    Parameters
    ----------
    beliefs : np.ndarray [shape=(n_rows, n_labels)]
        Of any classifier.
    """
    best = beliefs.max(axis=1, keepdims=True)
    is_best = beliefs >= best - 1e-12 * np.abs(best)
    credits: FloatArray = is_best / is_best.sum(axis=1, keepdims=True)
    return credits


def _shares(counts: FloatArray, prior: float) -> FloatArray:
    """Share of each row in its column, drawn towards the row's share in all columns."""
    total = counts.sum()
    overall = counts.sum(axis=1, keepdims=True) / max(total, 1.0)
    of_label = counts.sum(axis=0)
    shares: FloatArray = (counts + prior * overall) / np.maximum(of_label + prior, 1e-12)
    shares[:, of_label == 0] = 0.0
    return shares
