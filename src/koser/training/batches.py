"""Batches of utterances: bucketed by length, the same in every run of a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from koser.errors import RunError
from koser.training.bounds import Bound, deal, padded_length
from koser.training.ranks import ALONE, Ranks

# Batches are cut from pools of this many: similar lengths meet, yet no batch is ever
# made of the same utterances twice.
_POOL = 8


@dataclass(frozen=True)
class Batch:
    """Utterances side by side.

    Attributes
    ----------
    inputs : tuple[torch.Tensor, ...]
        What the network takes, as the table collates it; without rows where a rank has no
        share of a batch.
    targets : torch.Tensor [shape=(batch, n_classes)]
        Probability of each class: one-hot, or the raters' distribution.
    rows : np.ndarray [shape=(batch,)]
        Which utterances these are.
    n_windows : np.ndarray [shape=(batch,)]
        Into how many rows of `inputs` each of them is cut; they follow one another.
    """

    inputs: tuple[torch.Tensor, ...]
    targets: torch.Tensor
    rows: np.ndarray
    n_windows: np.ndarray


class Table(Protocol):
    """The utterances of a manifest, as arrays that a network learns from."""

    @property
    def targets(self) -> np.ndarray:
        """Target distributions [shape=(n_utterances, n_classes)], float32."""
        ...

    @property
    def in_windows(self) -> bool:
        """Whether an array has several windows of an utterance, along its first dimension."""
        ...

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Lengths of utterances, whole and unaugmented, in the table's unit; integers."""
        ...

    def n_windows(self, rows: np.ndarray) -> np.ndarray:
        """Into how many windows of equal length each utterance is cut, unaugmented."""
        ...

    # Any: an array, or where there are two of an utterance, both; the table's own.
    def read(self, row: int, rng: np.random.Generator | None) -> Any:
        """The array of one utterance; with `rng`, as it is heard in training."""
        ...

    def collate(self, arrays: Sequence[Any], /) -> tuple[torch.Tensor, ...]:
        """Put what was read side by side, as the network takes it."""
        ...

    def describe(self, rows: np.ndarray) -> str:
        """Identify all that the batches of `rows` depend on."""
        ...


def pad_features(arrays: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Put features of several utterances side by side.

    Parameters
    ----------
    arrays : Sequence[np.ndarray] [shape=(..., n_frames)]
        One per utterance; all but the last dimension are the same for all.

    Returns
    -------
    features : torch.Tensor [shape=(batch, ..., n_frames)]
        float32, with zeros up to the longest.
    n_frames : torch.Tensor [shape=(batch,)]
        Real frames of each.
    """
    features, n_frames, _ = pad_windows([array[None] for array in arrays])
    return features, n_frames


def pad_windows(
    arrays: Sequence[np.ndarray],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Put the windows of several utterances below each other.

    Parameters
    ----------
    arrays : Sequence[np.ndarray] [shape=(n_windows, ..., length)]
        One per utterance; all windows of one are equally long.

    Returns
    -------
    windows : torch.Tensor [shape=(total_windows, ..., longest)]
        float32, with zeros up to the longest.
    lengths : torch.Tensor [shape=(total_windows,)]
        int64; real values of each window along the last dimension.
    owners : torch.Tensor [shape=(total_windows,)]
        int64; which utterance of the batch a window is of.
    """
    n_windows = np.array([len(array) for array in arrays])
    lengths = np.array([array.shape[-1] for array in arrays])
    shape = (n_windows.sum(), *arrays[0].shape[1:-1], lengths.max())
    windows = np.zeros(shape, np.float32)
    places = np.split(windows, np.cumsum(n_windows)[:-1])  # views
    for place, array in zip(places, arrays, strict=True):
        place[..., : array.shape[-1]] = array
    owners = np.repeat(np.arange(len(arrays)), n_windows)
    return (
        torch.from_numpy(windows),
        torch.from_numpy(np.repeat(lengths, n_windows)),
        torch.from_numpy(owners),
    )


class TrainingBatches:
    """Shuffled batches, a new order and new draws each epoch.

    Order and batches depend on the seed, the epoch and the lengths; what is heard of an
    utterance depends on the seed, the epoch and its row, not on the batch it is in.

    Parameters
    ----------
    table : Table
        Where the utterances are.
    rows : np.ndarray
        The utterances to train on.
    batch_size : int, optional
        Utterances a batch.
    batch_length : int, optional
        In place of `batch_size` or beside it: the largest padded length of a batch, its
        windows times the longest, in the table's unit and before augmentation. A longer
        utterance is a batch by itself.
    seed : int
        Of every draw.
    cells : np.ndarray, optional [shape=(n_utterances of the table,)]
        What each utterance is one of; an epoch, as long as without it, hears all of them that
        the train part has equally often. Rare ones are repeated, of frequent ones some wait for
        another epoch.
    ranks : Ranks
        The processes that share every batch; the batches themselves do not depend on them.

    Raises
    ------
    ConfigError
        If neither `batch_size` nor `batch_length` is given.
    RunError
        If there are more processes than utterances in a batch.
    """

    def __init__(
        self,
        table: Table,
        rows: np.ndarray,
        *,
        batch_size: int | None = None,
        batch_length: int | None = None,
        seed: int,
        cells: np.ndarray | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self._bound = Bound(batch_size, batch_length)
        self._table = table
        self._rows = np.sort(rows)
        self._lengths = table.lengths(self._rows)
        self._n_windows = table.n_windows(self._rows)
        self._seed = seed
        self._cells: list[np.ndarray] | None = None  # places in the sorted rows
        if cells is not None:
            of_row = cells[self._rows]
            self._cells = [np.flatnonzero(of_row == cell) for cell in np.unique(of_row)]
        self.ranks = ranks
        self._check_size()

    def n_batches(self, epoch: int) -> int:
        """Batches of one epoch; where a length bounds them, epochs differ."""
        return len(self._plan(epoch))

    def describe(self) -> str:
        """A hash of all that the batches depend on."""
        digest = hashlib.blake2b(self._rows.tobytes(), digest_size=16)
        digest.update(f"{self._table.describe(self._rows)} {self._bound} {self._seed}".encode())
        for cell in self._cells or ():
            digest.update(f" {len(cell)}".encode() + cell.tobytes())
        return digest.hexdigest()

    def class_shares(self) -> np.ndarray:
        """Share of each class in what an epoch hears [shape=(n_classes,)]."""
        targets = self._table.targets[self._rows]
        if self._cells is None:
            return np.asarray(targets.mean(axis=0))
        return np.asarray(np.mean([targets[cell].mean(axis=0) for cell in self._cells], axis=0))

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield this rank's share of each batch of one epoch."""
        for batch in self._plan(epoch):
            shares = self._bound.shares(
                self._lengths[batch], self._n_windows[batch], self.ranks.n_ranks
            )
            rows = self._rows[batch[shares[self.ranks.rank]]]
            if not len(rows):
                yield _empty_batch(self._table, self._rows[0])
                continue
            rngs = [_generator(self._seed, epoch, row) for row in rows.tolist()]
            yield _batch(self._table, rows, rngs)

    def _check_size(self) -> None:
        if self.ranks.is_alone:
            return
        n_ranks = self.ranks.n_ranks
        n_utterances = min(self._bound.typical_size(self._lengths), len(self._rows))
        if n_utterances < n_ranks:
            raise RunError(
                f"{n_ranks} processes share batches of about {n_utterances} utterances: some would "
                f"have none. Use --nproc-per-node {n_utterances}, or larger batches "
                f"(--set train.{self._bound.setting(self._lengths)}=…)."
            )

    def _plan(self, epoch: int) -> list[np.ndarray]:
        """Which utterances are in each batch of an epoch, as places in the sorted rows."""
        rng = np.random.default_rng([self._seed, epoch])
        order = self._order(rng)
        size = _POOL * self._bound.typical_size(self._lengths)
        batches = []
        for start in range(0, len(order), size):
            pool = order[start : start + size]
            cut = self._bound.cut(self._lengths[pool], self._n_windows[pool])
            batches += [pool[chosen] for chosen in cut]
        return [batches[place] for place in rng.permutation(len(batches))]

    def _order(self, rng: np.random.Generator) -> np.ndarray:
        """What an epoch hears, as places in the sorted rows: each once, unless balanced."""
        n_rows = len(self._rows)
        if self._cells is None:
            return rng.permutation(n_rows)
        n_cells = len(self._cells)
        quotas = np.full(n_cells, n_rows // n_cells)
        quotas[rng.permutation(n_cells)[: n_rows % n_cells]] += 1
        drawn = []
        for cell, quota in zip(self._cells, quotas.tolist(), strict=True):
            # Whole rounds first: within an epoch no utterance is heard twice more than another.
            rounds = [rng.permutation(cell) for _ in range(-(-quota // len(cell)))]
            drawn.append(np.concatenate([*rounds, cell[:0]])[:quota])
        order: np.ndarray = rng.permutation(np.concatenate(drawn))
        return order


def iter_plain_batches(
    table: Table,
    rows: np.ndarray,
    *,
    batch_size: int | None = None,
    batch_length: int | None = None,
    ranks: Ranks = ALONE,
) -> Iterator[Batch]:
    """Yield every utterance once, unaugmented, neighbours in length together.

    Batches are dealt whole to `ranks`, so that what comes out is what one process has, bit
    for bit. `TrainingBatches` says what the other parameters are, and what is refused.
    """
    lengths, n_windows = table.lengths(rows), table.n_windows(rows)
    batches = Bound(batch_size, batch_length).cut(lengths, n_windows)
    costs = [padded_length(lengths[chosen], n_windows[chosen]) for chosen in batches]
    for place in deal(costs, ranks.n_ranks)[ranks.rank]:
        chosen = batches[place]
        yield _batch(table, rows[chosen], [None] * len(chosen))


def _generator(seed: int, epoch: int, row: int) -> np.random.Generator:
    # A spawn key, because [seed, epoch, 0] alone is the same seed as [seed, epoch].
    return np.random.default_rng(np.random.SeedSequence([seed, epoch], spawn_key=(row,)))


def _batch(table: Table, rows: np.ndarray, rngs: Sequence[np.random.Generator | None]) -> Batch:
    arrays = [table.read(row, rng) for row, rng in zip(rows.tolist(), rngs, strict=True)]
    n_windows = np.array([len(array) if table.in_windows else 1 for array in arrays], np.int64)
    targets = torch.from_numpy(table.targets[rows])
    return Batch(table.collate(arrays), targets, rows, n_windows)


def _empty_batch(table: Table, row: int) -> Batch:
    """What a rank has of a batch that it has no share of: tensors as of `row`, without rows."""
    nothing = np.zeros(0, np.int64)
    inputs = tuple(tensor[:0] for tensor in table.collate([table.read(row, None)]))
    return Batch(inputs, torch.from_numpy(table.targets[nothing]), nothing, nothing)
