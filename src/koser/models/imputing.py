"""A classifier on numbers of which an utterance may lack some."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from pydantic import Field
from torch import nn

from koser.config import Config
from koser.models.heads import HeadOptions, StateClassifier

# Values farther from the train part's mean are taken for errors of measurement and cut, in
# standard deviations.
_FARTHEST = 5.0


class ImputingHeadOptions(Config):
    """What is put on the numbers; the fields are those of `HeadOptions`."""

    hidden: int = Field(0, ge=0)  # units of a hidden layer; 0 for a linear classifier
    dropout: float = Field(0.3, ge=0, lt=1)  # around the hidden layer
    # Strength of the penalty on the linear classifier's squared weights, in units of one
    # utterance's loss.
    ridge: float = Field(10.0, ge=0)

    def as_head(self) -> HeadOptions:
        """The same as options of a head on one state."""
        return HeadOptions(hidden=self.hidden, dropout=self.dropout, ridge=self.ridge)


class ImputingHead(nn.Module):
    """Fills in what is undefined, standardises, cuts what is far out, and classifies.

    An undefined number becomes the mean of those that the train part has: after the
    standardisation it says nothing, neither for nor against a class. That it is undefined is
    said by numbers of its own, which are always defined.

    Parameters
    ----------
    n_values : int
        Numbers of an utterance.
    n_labels : int
        Classes.
    options : ImputingHeadOptions
        The classifier.
    """

    mean: torch.Tensor
    gain: torch.Tensor

    def __init__(self, n_values: int, n_labels: int, options: ImputingHeadOptions) -> None:
        super().__init__()
        self._options = options
        self.register_buffer("mean", torch.zeros(n_values))
        self.register_buffer("gain", torch.ones(n_values))
        # Its own standardiser stays as it is: it would not know what is undefined.
        self.classifier = StateClassifier(1, n_values, n_labels, options.as_head())

    def fit_scale(self, observations: Iterable[np.ndarray]) -> None:
        """Measure the train part, one pass, none kept; and set the penalty for its size.

        Parameters
        ----------
        observations : Iterable[np.ndarray] [shape=(2, n_values)]
            One utterance's numbers each, then which of them are defined.
        """
        n_utterances = 0
        counts, sums, squares = (np.zeros(len(self.mean)) for _ in range(3))
        for values, is_defined in observations:
            n_utterances += 1
            counts += is_defined
            sums += is_defined * values
            squares += is_defined * np.square(values, dtype=np.float64)
        known = np.maximum(counts, 1)
        mean = sums / known
        deviation = np.sqrt(np.maximum(squares / known - np.square(mean), 0.0))
        self.mean.copy_(torch.from_numpy(mean))
        # Of what does not vary in the train part nothing can be learnt.
        varies = deviation > 1e-6 * np.maximum(np.abs(mean), 1.0)
        self.gain.copy_(torch.from_numpy(varies / np.where(varies, deviation, 1.0)))
        self.classifier.set_ridge(self._options.as_head(), max(n_utterances, 1))

    def standardise(self, observations: torch.Tensor) -> torch.Tensor:
        """What the classifier is given [shape=(batch, n_values)] of (batch, 2, n_values)."""
        values, is_defined = observations.unbind(1)
        scaled = ((values - self.mean) * self.gain).clamp(-_FARTHEST, _FARTHEST)
        return torch.where(is_defined > 0, scaled, 0.0)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Logits [shape=(batch, n_labels)] of [shape=(batch, 2, n_values)]."""
        logits: torch.Tensor = self.classifier(self.standardise(observations)[:, None])
        return logits

    def penalty(self) -> torch.Tensor:
        """What is added to the loss."""
        return self.classifier.penalty()
