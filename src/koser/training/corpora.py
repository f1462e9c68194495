"""Several corpora in one training: which is which, and how often each is heard."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from koser.data.manifest import Manifest
from koser.errors import ConfigError
from koser.training.batches import Table
from koser.training.options import Balance


@dataclass(frozen=True, eq=False)
class Origins:
    """Which corpus each utterance is of.

    Attributes
    ----------
    names : tuple[str, ...]
        The corpora, ordered.
    ids : np.ndarray [shape=(n_utterances,), dtype=int64]
        Place in `names` of each utterance's.
    """

    names: tuple[str, ...]
    ids: np.ndarray

    @classmethod
    def of(cls, manifest: Manifest) -> Origins:
        """The corpora of a manifest's rows."""
        names, ids = np.unique(manifest.table["corpus"].to_numpy(), return_inverse=True)
        return cls(tuple(str(name) for name in names.tolist()), ids)

    def refuse_one(self, setting: str) -> None:
        """Refuse a setting that means something with several corpora only.

        Raises
        ------
        ConfigError
            If there is one.
        """
        if len(self.names) < 2:
            raise ConfigError(
                f"{setting} needs several corpora, and all utterances are of '{self.names[0]}'. "
                f"Give a manifest of each (--manifest A --manifest B), or leave it out."
            )


def balance_cells(balance: Balance, origins: Origins, targets: np.ndarray) -> np.ndarray | None:
    """What an epoch should hear equally much of, as `TrainingBatches` takes it.

    Parameters
    ----------
    balance : {'none', 'corpus', 'corpus+label'}
        Corpora, or the labels of each corpus.
    origins : Origins
        Of the utterances.
    targets : np.ndarray [shape=(n_utterances, n_classes)]
        Of them; with votes, an utterance is of the label that most raters chose.

    Returns
    -------
    np.ndarray or None [shape=(n_utterances,)]
        None for no balance.

    Raises
    ------
    ConfigError
        If corpora are to be balanced and there is one.
    """
    if balance == "none":
        return None
    if balance == "corpus":
        origins.refuse_one("train.balance = corpus")
        return origins.ids
    cells: np.ndarray = origins.ids * targets.shape[1] + targets.argmax(axis=1)
    return cells


@dataclass(frozen=True, eq=False)
class Alignment:
    """Features of every corpus with the mean and the spread that all have together.

    Attributes
    ----------
    gains, offsets : np.ndarray [shape=(n_corpora, ...)]
        What features of a corpus are multiplied by, and what is added then.
    """

    gains: np.ndarray
    offsets: np.ndarray

    @classmethod
    def fit(
        cls, table: Table, rows: np.ndarray, origins: Origins, *, has_frames: bool
    ) -> Alignment:
        """Measure the train part of each corpus; labels play no part.

        Parameters
        ----------
        table : Table
            Of features.
        rows : np.ndarray
            The train part.
        origins : Origins
            Corpora of all utterances.
        has_frames : bool
            Whether the last axis of the features is time, which is averaged over. Frames keep
            one spread for all their values, so that a spectrum keeps its shape.

        Raises
        ------
        ConfigError
            If a corpus has no utterance in the train part.
        """
        moments = []
        for corpus, name in enumerate(origins.names):
            own = rows[origins.ids[rows] == corpus]
            if not len(own):
                raise ConfigError(
                    f"corpora.normalise = corpus: the train part has no utterance of '{name}'. "
                    f"Leave it out, or split so that every corpus is trained on."
                )
            moments.append(_moments(table, own, has_frames=has_frames))
        counts, sums, squares = (np.stack(each) for each in zip(*moments, strict=True))
        mean, spread = _mean_and_spread(counts.sum(0), sums.sum(0), squares.sum(0), has_frames)
        own_means, own_spreads = zip(
            *(_mean_and_spread(*each, has_frames) for each in moments), strict=True
        )
        gains = spread / np.stack(own_spreads)
        return cls(gains, mean - np.stack(own_means) * gains)

    def __call__(self, array: np.ndarray, corpus: int) -> np.ndarray:
        """Features of one utterance of a corpus, aligned; float32."""
        aligned: np.ndarray = (array * self.gains[corpus] + self.offsets[corpus]).astype(np.float32)
        return aligned


@dataclass(frozen=True, eq=False)
class AlignedTable:
    """A table whose features are aligned, corpus by corpus.

    Attributes
    ----------
    table : Table
        The utterances.
    origins : Origins
        Their corpora.
    alignment : Alignment
        Of these corpora.
    """

    table: Table
    origins: Origins
    alignment: Alignment

    @property
    def targets(self) -> np.ndarray:
        """Target distributions [shape=(n_utterances, n_classes)]."""
        return self.table.targets

    @property
    def in_windows(self) -> bool:
        """As the table's own."""
        return self.table.in_windows

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Lengths of utterances."""
        return self.table.lengths(rows)

    def n_windows(self, rows: np.ndarray) -> np.ndarray:
        """As the table's own."""
        return self.table.n_windows(rows)

    def read(self, row: int, rng: np.random.Generator | None = None) -> np.ndarray:
        """The aligned features of one utterance."""
        return self.alignment(self.table.read(row, rng), int(self.origins.ids[row]))

    def collate(self, arrays: Sequence[np.ndarray]) -> tuple[torch.Tensor, ...]:
        """As the table's own."""
        return self.table.collate(arrays)

    def describe(self, rows: np.ndarray) -> str:
        """As the table's own, with the alignment."""
        digest = hashlib.blake2b(self.origins.ids[rows].tobytes(), digest_size=16)
        for array in (self.alignment.gains, self.alignment.offsets):
            digest.update(np.ascontiguousarray(array).tobytes())
        return f"{self.table.describe(rows)} {digest.hexdigest()}"


def _moments(
    table: Table, rows: np.ndarray, *, has_frames: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count, sum and sum of squares of features, one pass, none kept."""
    n, total, squares = 0, np.zeros(()), np.zeros(())
    for row in rows.tolist():
        values = table.read(row, None).astype(np.float64)
        frames = values if has_frames else values[..., None]
        n += frames.shape[-1]
        total = total + frames.sum(axis=-1)
        squares = squares + np.square(frames).sum(axis=-1)
    return np.array(n), total, squares


def _mean_and_spread(
    n: np.ndarray, total: np.ndarray, squares: np.ndarray, has_frames: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, shaped to meet features."""
    mean = total / n
    variance = np.maximum(squares / n - mean**2, 0.0)
    if has_frames:
        mean, variance = mean[..., None], variance.mean(axis=-1, keepdims=True)[..., None]
    # What does not vary has nothing to align.
    return mean, np.where(variance > 1e-12, np.sqrt(variance), 1.0)
