"""Batches of stored features: bucketed by length, the same in every run of a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from koser.features.store import FeatureStore

# Batches are cut from pools of this many: similar lengths meet, yet no batch is ever
# made of the same utterances twice.
_POOL = 8


@dataclass(frozen=True)
class Batch:
    """Utterances side by side.

    Attributes
    ----------
    features : torch.Tensor [shape=(batch, n_features, n_frames)]
        Zero after an utterance's end.
    n_frames : torch.Tensor [shape=(batch,)]
        Real frames of each.
    targets : torch.Tensor [shape=(batch, n_classes)]
        Probability of each class: one-hot, or the raters' distribution.
    rows : np.ndarray [shape=(batch,)]
        Which utterances these are.
    """

    features: torch.Tensor
    n_frames: torch.Tensor
    targets: torch.Tensor
    rows: np.ndarray


def pad_features(arrays: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Put features of several utterances side by side.

    Parameters
    ----------
    arrays : Sequence[np.ndarray] [shape=(n_features, n_frames)]
        One per utterance.

    Returns
    -------
    features : torch.Tensor [shape=(batch, n_features, n_frames)]
        float32, with zeros up to the longest.
    n_frames : torch.Tensor [shape=(batch,)]
        Real frames of each.
    """
    n_frames = np.array([array.shape[1] for array in arrays])
    features = np.zeros((len(arrays), arrays[0].shape[0], n_frames.max()), np.float32)
    for place, array in zip(features, arrays, strict=True):
        place[:, : array.shape[1]] = array
    return torch.from_numpy(features), torch.from_numpy(n_frames)


@dataclass(frozen=True)
class FeatureTable:
    """Stored features of a manifest's utterances, in one or several variants.

    Attributes
    ----------
    stores : tuple[FeatureStore, ...]
        One per variant; the first is the plain one.
    keys : np.ndarray [shape=(n_variants, n_utterances), dtype=S16]
        Where each utterance lies in each store; blank where a variant was not made.
    targets : np.ndarray [shape=(n_utterances, n_classes)]
        float32 target distributions.
    """

    stores: tuple[FeatureStore, ...]
    keys: np.ndarray
    targets: np.ndarray

    def read(self, row: int, variant: int = 0) -> np.ndarray:
        """Features of one utterance [shape=(n_features, n_frames)]."""
        return self.stores[variant].read(bytes(self.keys[variant, row]))

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Frames of utterances in the plain variant."""
        return self.stores[0].n_columns(self.keys[0, rows])

    def collate(self, rows: Sequence[int], arrays: Sequence[np.ndarray]) -> Batch:
        """Put utterances side by side, padded with zeros to the longest."""
        features, n_frames = pad_features(arrays)
        targets = torch.from_numpy(self.targets[list(rows)])
        return Batch(features, n_frames, targets, np.asarray(rows))


class TrainingBatches:
    """Shuffled batches, a new order and new variants each epoch.

    Parameters
    ----------
    table : FeatureTable
        Where the features are.
    rows : np.ndarray
        The utterances to train on.
    batch_size : int
        Utterances a batch.
    crop_frames : int
        Longer utterances are heard in a random stretch of this many frames; 0 for whole.
    seed : int
        Order, variants and stretches depend on it and on the epoch, on nothing else.
    """

    def __init__(
        self,
        table: FeatureTable,
        rows: np.ndarray,
        *,
        batch_size: int,
        crop_frames: int,
        seed: int,
    ) -> None:
        self._table = table
        self._rows = np.sort(rows)
        self._lengths = table.lengths(self._rows)
        self._batch_size = batch_size
        self._crop_frames = crop_frames
        self._seed = seed

    def __len__(self) -> int:
        return -(-len(self._rows) // self._batch_size)

    def describe(self) -> str:
        """A hash of all that the batches depend on."""
        digest = hashlib.blake2b(digest_size=16)
        for array in (self._rows, self._table.keys[:, self._rows], self._table.targets[self._rows]):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(f"{self._batch_size} {self._crop_frames} {self._seed}".encode())
        return digest.hexdigest()

    def class_shares(self) -> np.ndarray:
        """Share of each class in the train part [shape=(n_classes,)]."""
        return np.asarray(self._table.targets[self._rows].mean(axis=0))

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of one epoch."""
        rng = np.random.default_rng([self._seed, epoch])
        variants = rng.integers(len(self._table.stores), size=len(self._rows))
        places = rng.random(len(self._rows))  # of the stretches
        order = rng.permutation(len(self._rows))
        batches = []
        pool = self._batch_size * _POOL
        for start in range(0, len(order), pool):
            chunk = order[start : start + pool]
            chunk = chunk[np.argsort(self._lengths[chunk], kind="stable")]
            batches += [
                chunk[first : first + self._batch_size]
                for first in range(0, len(chunk), self._batch_size)
            ]
        for place in rng.permutation(len(batches)):
            chosen = batches[place]
            arrays = [
                self._stretch(self._table.read(int(self._rows[i]), int(variants[i])), places[i])
                for i in chosen
            ]
            yield self._table.collate(self._rows[chosen].tolist(), arrays)

    def _stretch(self, array: np.ndarray, place: float) -> np.ndarray:
        spare = array.shape[1] - self._crop_frames
        if self._crop_frames == 0 or spare <= 0:
            return array
        start = int(place * (spare + 1))
        return array[:, start : start + self._crop_frames]


def iter_plain_batches(
    table: FeatureTable, rows: np.ndarray, *, batch_size: int
) -> Iterator[Batch]:
    """Yield every utterance once, unaugmented, neighbours in length together."""
    order = rows[np.argsort(table.lengths(rows), kind="stable")]
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size].tolist()
        yield table.collate(chosen, [table.read(row) for row in chosen])
