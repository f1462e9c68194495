"""What is known of a speaker's voice: the mean of features, shrunk towards that of all speakers.

The model
---------
A value of an utterance's features is taken to be the mean over all speakers, plus the speaker's own
deviation (variance τ² between speakers), plus the utterance's (variance σ² within a speaker). The
best linear prediction of a speaker's deviation from n utterances with mean x̄ is then [1]_

    n τ² / (n τ² + σ²) · (x̄ - μ),

which is taken from the features of everything else that the speaker says. Without utterances it
is 0; with many it is all of x̄ - μ; and a value in which speakers do not differ is left alone
however many there are. It is also the MAP estimate of the mean under a normal prior, whose
"relevance factor" [2]_ is σ²/τ², here measured for each value instead of chosen. Variances are
those of the analysis of variance with unequal groups [1]_, over the speakers of the train part.

References
----------
.. [1] Searle, Casella & McCulloch, "Variance Components", Wiley, 1992: chapters 3 and 7.
.. [2] Gauvain & Lee, "Maximum a posteriori estimation for multivariate Gaussian mixture
   observations of Markov chains", IEEE Trans. Speech and Audio Processing 2(2), 1994.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from koser.errors import ConfigError

# What a checkpoint calls the parts of a prior.
_PREFIX = "enrolment."
_PARTS = ("mean", "within", "between")


@dataclass(frozen=True, eq=False)
class Voice:
    """What was heard of one person: sums, no sound.

    Attributes
    ----------
    n_utterances : int
        Heard so far.
    total : np.ndarray [shape of a summary]
        Sum of their summaries, float64.
    offset : np.ndarray [shape of a summary]
        What is taken from the features of whatever else the person says, float32.
    """

    n_utterances: int
    total: np.ndarray
    offset: np.ndarray

    @property
    def n_bytes(self) -> int:
        """Memory that it takes."""
        return self.total.nbytes + self.offset.nbytes


@dataclass(frozen=True, eq=False)
class SpeakerPrior:
    """What is known of a speaker before anything is heard.

    Attributes
    ----------
    mean : np.ndarray [shape of a summary]
        Of all utterances.
    within : np.ndarray [shape of a summary]
        Variance of a speaker's utterances, σ².
    between : np.ndarray [shape of a summary]
        Variance of speakers, τ².
    """

    mean: np.ndarray
    within: np.ndarray
    between: np.ndarray

    @classmethod
    def fit(cls, summaries: Iterable[np.ndarray], speakers: np.ndarray) -> SpeakerPrior:
        """Measure utterances in one pass; labels play no part.

        Parameters
        ----------
        summaries : Iterable[np.ndarray]
            Of each utterance; all of one shape. None is kept.
        speakers : np.ndarray [shape=(n_utterances,)]
            Who speaks each.

        Raises
        ------
        ConfigError
            If it is one speaker, or each has a single utterance: nothing tells then how much of a
            difference is the speaker's.
        """
        names, place = np.unique(speakers, return_inverse=True)
        counts = np.bincount(place)
        n, n_speakers = len(place), len(names)
        if n_speakers < 2 or n == n_speakers:
            raise ConfigError(
                f"Enrolment is learnt from how speakers differ, and the train part has "
                f"{n_speakers} speakers with {n} utterances. Train on two speakers or more with "
                f"several utterances each, or without enrolment."
            )
        sums: list[np.ndarray] = [np.zeros(())] * n_speakers
        squares = np.zeros(())
        for speaker, summary in zip(place.tolist(), summaries, strict=True):
            values = summary.astype(np.float64)
            sums[speaker] = sums[speaker] + values
            squares = squares + np.square(values)
        stacked = np.stack(sums)
        weights = counts.reshape(-1, *(1,) * (stacked.ndim - 1))
        mean = stacked.sum(axis=0) / n
        of_means = (np.square(stacked) / weights).sum(axis=0)
        within = np.maximum(squares - of_means, 0.0) / (n - n_speakers)
        among = (of_means - n * np.square(mean)) / (n_speakers - 1)
        n_typical = (n - np.square(counts).sum() / n) / (n_speakers - 1)
        return cls(mean, within, np.maximum(among - within, 0.0) / n_typical)

    def hear(self, summaries: Sequence[np.ndarray], voice: Voice | None = None) -> Voice:
        """What is known of a voice once utterances are heard, beside those of `voice`."""
        total = np.zeros(self.mean.shape) if voice is None else voice.total
        for summary in summaries:
            total = total + summary
        n = len(summaries) + (0 if voice is None else voice.n_utterances)
        spread = n * self.between
        # A value that varies neither way has nothing to adapt.
        known = np.where(spread > 0, spread + self.within, 1.0)
        offset = spread / known * (total / max(n, 1) - self.mean)
        return Voice(n, total, offset.astype(np.float32))

    def to_state(self) -> dict[str, np.ndarray]:
        """Its arrays by the names that a checkpoint has for them."""
        return {f"{_PREFIX}{part}": getattr(self, part) for part in _PARTS}

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> SpeakerPrior | None:
        """What `to_state` gave, among other arrays; None where there is nothing of it."""
        if f"{_PREFIX}{_PARTS[0]}" not in state:
            return None
        return cls(*(state[f"{_PREFIX}{part}"] for part in _PARTS))


def summarise(features: np.ndarray, *, has_frames: bool) -> np.ndarray:
    """An utterance's features without time, float64.

    Parameters
    ----------
    features : np.ndarray [shape=(...) or (..., n_frames)]
        Of one utterance.
    has_frames : bool
        Whether the last axis is time; it is averaged over, and kept with length 1.
    """
    values = features.astype(np.float64)
    return values.mean(axis=-1, keepdims=True) if has_frames else values


def adapt(features: np.ndarray, voice: Voice | None) -> np.ndarray:
    """Features of an utterance of a known voice, float32; as they are of an unknown one."""
    return features if voice is None else features - voice.offset
