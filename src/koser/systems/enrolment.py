"""What systems with speaker enrolment have in common: those whose features can be shifted.

`mfcc` and `wav2vec2` call it where their features are read, and nothing of it where
``enrolment.k`` is not set, or 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from koser.data.enrolment import Enrolment, EnrolmentOptions
from koser.data.manifest import Manifest
from koser.errors import ConfigError
from koser.features.voices import SpeakerPrior, Voice
from koser.systems.corpora import CorporaOptions
from koser.training.batches import Table
from koser.training.enrolment import EnrolledTable, iter_summaries


def draw_enrolment(manifest: Manifest, options: EnrolmentOptions) -> Enrolment | None:
    """Who is enrolled with what, if anybody is.

    Raises
    ------
    SplitError
        If speakers are not known.
    """
    return Enrolment.draw(manifest, options) if options.k else None


@dataclass(frozen=True, eq=False)
class Enroller:
    """How a trained system adapts to speakers.

    Attributes
    ----------
    prior : SpeakerPrior
        Of its train part.
    k : int
        Utterances of a tested speaker that it hears.
    train_rows : np.ndarray
        The train part; empty in a system that was loaded.
    has_frames : bool
        Whether the last axis of its features is time.
    """

    prior: SpeakerPrior
    k: int
    train_rows: np.ndarray
    has_frames: bool

    @classmethod
    def fit(
        cls,
        options: EnrolmentOptions,
        corpora: CorporaOptions,
        table: Table,
        rows: np.ndarray,
        enrolment: Enrolment | None,
        *,
        has_frames: bool,
    ) -> Enroller | None:
        """Measure the speakers of the train part `rows`, if there is an enrolment.

        Raises
        ------
        ConfigError
            If features are normalised by corpus too, or the train part has too few speakers.
        """
        if not options.k or enrolment is None:
            return None
        if corpora.normalise != "all":
            raise ConfigError(
                f"corpora.normalise = {corpora.normalise} and enrolment.k = {options.k} both say "
                f"what features are normalised by. Give one of them."
            )
        summaries = iter_summaries(table, rows, has_frames)
        prior = SpeakerPrior.fit(summaries, enrolment.speakers[rows])
        return cls(prior, options.k, rows, has_frames)

    def enrolled(self, table: Table, enrolment: Enrolment | None) -> Table:
        """A table whose features are adapted to their speakers; as it is where none is known."""
        if enrolment is None:
            return table
        return EnrolledTable(
            table, self.prior, enrolment, self.k, self.train_rows, has_frames=self.has_frames
        )

    def to_state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint keeps of it."""
        return {name: torch.from_numpy(array) for name, array in self.prior.to_state().items()}

    @classmethod
    def pop(
        cls, state: dict[str, torch.Tensor], options: EnrolmentOptions, *, has_frames: bool
    ) -> Enroller | None:
        """Take what `to_state` gave out of a checkpoint's state; None where there is none."""
        prior = SpeakerPrior.from_state({name: each.numpy() for name, each in state.items()})
        if prior is None:
            return None
        for name in prior.to_state():
            del state[name]
        return cls(prior, options.k or 0, np.zeros(0, np.int64), has_frames)


class Enrolling(ABC):
    """What a system that adapts to speakers can do because of it; beside `System`.

    Its class says what the network gives for waveforms; see `EnrollingSystem`.
    """

    _enroller: Enroller | None = None

    @property
    def prior(self) -> SpeakerPrior | None:
        """What it knows of speakers, if it was trained with enrolment."""
        return None if self._enroller is None else self._enroller.prior

    @abstractmethod
    def compute_outputs(
        self, waveforms: Sequence[np.ndarray], voices: Sequence[Voice | None] | None = None
    ) -> torch.Tensor:
        """Logits of waveforms (16 kHz mono) [shape=(n_waveforms, n_labels)], float64.

        Parameters
        ----------
        waveforms : Sequence[np.ndarray]
            Sound.
        voices : Sequence[Voice | None], optional
            Whose each is, where that is known.
        """

    def predict_waveforms(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Probabilities of waveforms (16 kHz mono) [shape=(n_waveforms, n_labels)]."""
        probabilities: np.ndarray = self.compute_outputs(waveforms).softmax(1).numpy()
        return probabilities

    def predict_enrolled(
        self, waveforms: Sequence[np.ndarray], voices: Sequence[Voice | None]
    ) -> np.ndarray:
        """Probabilities of waveforms of known voices [shape=(n_waveforms, n_labels)]."""
        probabilities: np.ndarray = self.compute_outputs(waveforms, voices).softmax(1).numpy()
        return probabilities


def enrolled_table(table: Table, enroller: Enroller | None, enrolment: Enrolment | None) -> Table:
    """A table under an enroller; itself where there is none."""
    return table if enroller is None else enroller.enrolled(table, enrolment)


def refuse_graph(enroller: Enroller | None) -> None:
    """Refuse to make one graph of a system that adapts to speakers.

    Raises
    ------
    ConfigError
        If it does.
    """
    if enroller is not None:
        raise ConfigError(
            "A model with speaker enrolment cannot be exported to ONNX: a graph takes a waveform, "
            "and could not be told of a voice. Train without --enrol for one that can."
        )


def state_with(
    enroller: Enroller | None, state: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """A network's state with what is known of speakers, as a checkpoint keeps both."""
    return {**state, **({} if enroller is None else enroller.to_state())}
