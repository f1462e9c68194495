"""Training and testing on speakers of whom something was heard before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from koser.data.enrolment import Enrolment, rows_by_speaker
from koser.features.voices import SpeakerPrior, Voice, adapt, summarise
from koser.training.batches import Table


class EnrolledTable:
    """A table whose features are adapted to their speakers.

    In training an utterance meets from none to `k` others of its speaker, drawn by the
    utterance's own address: the network learns what it will be given of a caller of whom little
    was heard, or nothing. What is tested meets the `k` that its speaker is enrolled with.

    Parameters
    ----------
    table : Table
        The utterances.
    prior : SpeakerPrior
        Of the train part.
    enrolment : Enrolment
        Of the table's rows.
    k : int
        Utterances.
    train_rows : np.ndarray
        Those that training may meet.
    has_frames : bool
        Whether the last axis of the features is time.
    """

    def __init__(
        self,
        table: Table,
        prior: SpeakerPrior,
        enrolment: Enrolment,
        k: int,
        train_rows: np.ndarray,
        *,
        has_frames: bool,
    ) -> None:
        self._table = table
        self._prior = prior
        self._enrolment = enrolment
        self._k = k
        self._has_frames = has_frames
        self._known = rows_by_speaker(enrolment.speakers, np.sort(train_rows))
        self._voices: dict[int, Voice] = {}  # of those who are tested, as they come

    @property
    def targets(self) -> np.ndarray:
        """Target distributions [shape=(n_utterances, n_classes)]."""
        return self._table.targets

    @property
    def in_windows(self) -> bool:
        """As the table's own."""
        return self._table.in_windows

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Lengths of utterances."""
        return self._table.lengths(rows)

    def n_windows(self, rows: np.ndarray) -> np.ndarray:
        """As the table's own."""
        return self._table.n_windows(rows)

    def read(self, row: int, rng: np.random.Generator | None = None) -> np.ndarray:
        """The features of one utterance, adapted to what was heard of its speaker."""
        features: np.ndarray = self._table.read(row, rng)
        speaker = int(self._enrolment.speakers[row])
        if rng is not None:
            return adapt(features, self._hear(self._draw(row, speaker, rng)))
        if speaker not in self._voices:
            self._voices[speaker] = self._hear(self._enrolment.heard(speaker, self._k))
        return adapt(features, self._voices[speaker])

    def collate(self, arrays: Sequence[np.ndarray]) -> tuple[torch.Tensor, ...]:
        """As the table's own."""
        return self._table.collate(arrays)

    def describe(self, rows: np.ndarray) -> str:
        """As the table's own, with the prior and all that may be heard."""
        digest = hashlib.blake2b(f"{self._k}".encode(), digest_size=16)
        arrays = (self._enrolment.speakers[rows], *self._prior.to_state().values())
        for array in arrays:
            digest.update(np.ascontiguousarray(array).tobytes())
        return f"{self._table.describe(rows)} {digest.hexdigest()}"

    def _draw(self, row: int, speaker: int, rng: np.random.Generator) -> np.ndarray:
        """Rows of the train part to be heard before `row`, none of them itself."""
        known = self._known[speaker]
        others = known[known != row]
        n = min(int(rng.integers(self._k + 1)), len(others))
        drawn: np.ndarray = rng.choice(others, n, replace=False)
        return drawn

    def _hear(self, rows: np.ndarray) -> Voice:
        return self._prior.hear(list(iter_summaries(self._table, rows, self._has_frames)))


def iter_summaries(table: Table, rows: np.ndarray, has_frames: bool) -> Iterator[np.ndarray]:
    """Yield utterances as they were recorded, without time; see `summarise`."""
    for row in rows.tolist():
        yield summarise(table.read(row, None), has_frames=has_frames)
