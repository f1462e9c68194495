"""Tables of stored arrays: features over time, and what is kept of an encoder's states."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from koser.features.store import FeatureStore
from koser.training.batches import pad_features, pad_windows


@dataclass(frozen=True)
class StoredTable:
    """What all tables of stored arrays have; training chooses among the variants.

    Attributes
    ----------
    stores : tuple[FeatureStore, ...]
        One per variant; the first is the plain one.
    keys : np.ndarray [shape=(n_variants, n_utterances), dtype=S16]
        Where each utterance lies in each store; blank where a variant was not made.
    targets : np.ndarray [shape=(n_utterances, n_classes)]
        float32 target distributions.
    """

    in_windows: ClassVar[bool] = False
    stores: tuple[FeatureStore, ...]
    keys: np.ndarray
    targets: np.ndarray

    def n_windows(self, rows: np.ndarray) -> np.ndarray:
        """1 for every utterance: it is whole."""
        return np.ones(len(rows), np.int64)

    def read(self, row: int, rng: np.random.Generator | None = None) -> np.ndarray:
        """The array of one utterance: the plain one, or one that `rng` chooses."""
        variant = 0 if rng is None else int(rng.integers(len(self.stores)))
        return self.stores[variant].read(bytes(self.keys[variant, row]))

    def describe(self, rows: np.ndarray) -> str:
        """A hash of the front-ends, of the sound of `rows`, and of their targets."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(" ".join(store.folder.name for store in self.stores).encode())
        for array in (self.keys[:, rows], self.targets[rows]):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class FeatureTable(StoredTable):
    """Stored features [shape=(n_features, n_frames)]; a length counts frames.

    Attributes
    ----------
    crop_frames : int
        Longer utterances train in a random stretch of this many frames; 0 for whole.
    """

    crop_frames: int = 0

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Frames of utterances in the plain variant."""
        frames: np.ndarray = self.stores[0].shapes(self.keys[0, rows])[:, 1]
        return frames

    def read(self, row: int, rng: np.random.Generator | None = None) -> np.ndarray:
        """Features of one utterance, in training of a stretch [shape=(n_features, n_frames)]."""
        features = super().read(row, rng)
        spare = features.shape[1] - self.crop_frames
        if rng is None or self.crop_frames == 0 or spare <= 0:
            return features
        start = int(rng.integers(spare + 1))
        return features[:, start : start + self.crop_frames]

    @staticmethod
    def collate(arrays: Sequence[np.ndarray]) -> tuple[torch.Tensor, ...]:
        """``(features, n_frames)`` of `pad_features`."""
        return pad_features(arrays)

    def describe(self, rows: np.ndarray) -> str:
        """As `StoredTable.describe`, with the length of a stretch."""
        return f"{super().describe(rows)} {self.crop_frames}"


@dataclass(frozen=True)
class FramesTable(StoredTable):
    """Stored hidden states [shape=(n_states, width, n_frames)]; a length counts frames."""

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Frames of utterances in the plain variant."""
        frames: np.ndarray = self.stores[0].shapes(self.keys[0, rows])[:, 2]
        return frames

    @staticmethod
    def collate(arrays: Sequence[np.ndarray]) -> tuple[torch.Tensor, ...]:
        """``(hidden_states, n_frames)``, padded as `pad_features` does."""
        return pad_features(arrays)


@dataclass(frozen=True)
class StatisticsTable(StoredTable):
    """Stored arrays of one shape for all, such as statistics [shape=(n_states, 2, width)]."""

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """1 for every utterance: there is nothing to pad."""
        return np.ones(len(rows), np.int64)

    @staticmethod
    def collate(arrays: Sequence[np.ndarray]) -> tuple[torch.Tensor, ...]:
        """``(statistics,)`` in float32, one utterance after the other."""
        return (torch.from_numpy(np.stack(arrays).astype(np.float32)),)


@dataclass(frozen=True)
class WindowTable(StoredTable):
    """Stored hidden states [shape=(n_windows, n_features, n_frames)]; a length counts frames.

    An utterance that is longer than the encoder's window has several of them, all equally
    long. The arrays may be float16.
    """

    in_windows: ClassVar[bool] = True

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Frames of all windows of utterances in the plain variant."""
        shapes = self.stores[0].shapes(self.keys[0, rows])
        frames: np.ndarray = shapes[:, 0] * shapes[:, 2]
        return frames

    def n_windows(self, rows: np.ndarray) -> np.ndarray:
        """Windows of utterances in the plain variant."""
        counts: np.ndarray = self.stores[0].shapes(self.keys[0, rows])[:, 0]
        return counts

    @staticmethod
    def collate(arrays: Sequence[np.ndarray]) -> tuple[torch.Tensor, ...]:
        """``(hidden_states, n_frames, owners)`` of `pad_windows`."""
        return pad_windows(arrays)


@dataclass(frozen=True)
class ArrayTable:
    """Arrays of equal shape that are at hand as one, in memory or mapped into it.

    Attributes
    ----------
    arrays : np.ndarray [shape=(n_utterances, ...)]
        One per utterance.
    targets : np.ndarray [shape=(n_utterances, n_classes)]
        float32 target distributions.
    """

    in_windows: ClassVar[bool] = False
    arrays: np.ndarray
    targets: np.ndarray

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """1 for every utterance: there is nothing to pad."""
        return np.ones(len(rows), np.int64)

    def n_windows(self, rows: np.ndarray) -> np.ndarray:
        """1 for every utterance: it is whole."""
        return np.ones(len(rows), np.int64)

    def read(self, row: int, rng: np.random.Generator | None = None) -> np.ndarray:
        """The array of one utterance; there is nothing to augment."""
        array: np.ndarray = self.arrays[row]
        return array

    @staticmethod
    def collate(arrays: Sequence[np.ndarray]) -> tuple[torch.Tensor, ...]:
        """``(arrays,)``, one utterance after the other."""
        return (torch.from_numpy(np.stack(arrays)),)

    def describe(self, rows: np.ndarray) -> str:
        """A hash of arrays and targets."""
        digest = hashlib.blake2b(digest_size=16)
        for row in rows.tolist():
            digest.update(np.ascontiguousarray(self.arrays[row]).data)
            digest.update(self.targets[row].tobytes())
        return digest.hexdigest()
