"""From hidden states to logits: which layers, how pooled over time, which classifier."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, cast

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from koser.config import Config
from koser.errors import ConfigError
from koser.features.speech.encoder import frame_mask

# Hidden units of the score that attentive pooling gives a frame.
_ATTENTION_SIZE = 128


class HeadOptions(Config):
    """What is put on an encoder."""

    # All states, with learned weights [Yang et al., "SUPERB", Interspeech 2021], the last
    # one, or the one with this number (0 is what the first layer takes).
    layers: Literal["weighted", "last"] | int = "weighted"
    pooling: Literal["mean", "mean+std", "attentive"] = "mean"
    hidden: int = Field(0, ge=0)  # units of a hidden layer; 0 for a linear classifier
    dropout: float = Field(0.3, ge=0, lt=1)  # around the hidden layer
    # Strength of the penalty on the linear classifier's squared weights, in units of one
    # utterance's loss: the fewer utterances, the more it counts. With a hidden layer,
    # dropout and weight decay serve instead.
    ridge: float = Field(1000.0, ge=0)

    def states(self, n_layers: int) -> tuple[int, ...]:
        """Which states it takes, of an encoder of `n_layers` layers.

        Raises
        ------
        ConfigError
            If the encoder has no such state.
        """
        if self.layers == "weighted":
            return tuple(range(n_layers + 1))
        if self.layers == "last":
            return (n_layers,)
        if not 0 <= self.layers <= n_layers:
            raise ConfigError(
                f"head.layers = {self.layers}: the encoder's states are 0 to {n_layers}. Give one "
                f'of them, "last" or "weighted".'
            )
        return (self.layers,)


class StateMapping(nn.Module):
    """A linear map of each state, summed with learned weights.

    Each state has a map of its own, because the layers of an encoder do not share a
    space; the weights, which add up to 1, say how far each is to be trusted.

    Parameters
    ----------
    n_states, n_values : int
        States, and standardised values of each.
    n_outputs : int
        Values of the sum.
    """

    def __init__(self, n_states: int, n_values: int, n_outputs: int) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(n_states))
        self.maps = nn.Parameter(torch.zeros(n_states, n_values, n_outputs))
        self.bias = nn.Parameter(torch.zeros(n_outputs))

    @property
    def weights(self) -> torch.Tensor:
        """Weight of each state [shape=(n_states,)]."""
        return self.scores.softmax(0)

    def spread(self) -> None:
        """Start at random, as is needed where something learnt comes after it."""
        n_states, n_values, _ = self.maps.shape
        nn.init.normal_(self.maps, std=(n_states * n_values) ** -0.5)

    def combine(self, values: torch.Tensor) -> torch.Tensor:
        """Sums [shape=(..., n_outputs)] of values [shape=(..., n_states * n_values)]."""
        # The root makes a weight the share of the variance that a state's map may have.
        gains = (len(self.scores) * self.weights).sqrt()
        maps = (self.maps * gains[:, None, None]).flatten(0, 1)
        return values @ maps + self.bias


class StateClassifier(StateMapping):
    """Pooled states to logits: a `StateMapping`, perhaps with a hidden layer after it.

    Without a hidden layer this is a linear classifier of all states together whose penalty is
    learned per state, and its training is a convex problem for given weights.

    Parameters
    ----------
    n_states, n_values : int
        States, and pooled values of each.
    n_labels : int
        Classes.
    options : HeadOptions
        Hidden layer, dropout and penalty.
    """

    def __init__(self, n_states: int, n_values: int, n_labels: int, options: HeadOptions) -> None:
        super().__init__(n_states, n_values, options.hidden or n_labels)
        self.standardizer = StateStandardizer(n_states, n_values)
        self.hidden: nn.Sequential | None = None
        self.ridge = 0.0  # per utterance of the train part; see `set_ridge`
        if options.hidden:
            self.spread()
            self.hidden = nn.Sequential(
                nn.GELU(), nn.Dropout(options.dropout), nn.Linear(options.hidden, n_labels)
            )
        self.dropout = nn.Dropout(options.dropout if options.hidden else 0.0)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Logits [shape=(batch, n_labels)] of [shape=(batch, n_states, n_values)]."""
        outputs = self.combine(self.dropout(self.standardizer(pooled)).flatten(1))
        logits: torch.Tensor = outputs if self.hidden is None else self.hidden(outputs)
        return logits

    def set_ridge(self, options: HeadOptions, n_utterances: int) -> None:
        """Let the penalty be that of `options`, for a train part of `n_utterances`."""
        self.ridge = 0.0 if options.hidden else options.ridge / n_utterances

    def representation(self) -> tuple[nn.Module, int]:
        """What comes last, and how many learnt values it is given.

        Raises
        ------
        ConfigError
            If nothing learnt comes before it.
        """
        if self.hidden is None:
            raise ConfigError(
                "corpora.adversary: the head is linear, so nothing that is learnt comes before "
                "it. Give it a hidden layer: --set head.hidden=128"
            )
        last = cast(nn.Linear, self.hidden[-1])
        return last, last.in_features

    def penalty(self) -> torch.Tensor:
        """What is added to the loss; 0 with a hidden layer."""
        return 0.5 * self.ridge * self.maps.square().sum()

    def extra_repr(self) -> str:
        """What a resumed training must have in common."""
        return f"shape={tuple(self.maps.shape)}, ridge={self.ridge:g}"


class StateStandardizer(nn.Module):
    """Mean 0 and variance 1 of every value, as measured on the train part.

    Parameters
    ----------
    shape : tuple[int, ...]
        Of one utterance's values.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    def fit(self, observations: Iterable[np.ndarray]) -> None:
        """Measure blocks of observations [shape=(n, *shape)], one pass, none kept.

        Without any, values stay as they are.
        """
        n = 0
        sums = np.zeros(self.mean.shape)
        squares = np.zeros(self.mean.shape)
        for block in observations:
            values = block.astype(np.float64)
            n += len(values)
            sums += values.sum(axis=0)
            squares += np.square(values).sum(axis=0)
        if n == 0:
            return
        mean = sums / n
        deviation = np.sqrt(np.maximum(squares / n - mean**2, 0.0))
        self.mean.copy_(torch.from_numpy(mean))
        # What does not vary in the train part says nothing; dividing by it would blow up.
        self.scale.copy_(torch.from_numpy(np.where(deviation > 1e-6, deviation, 1.0)))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Standardise [shape=(batch, *shape)]."""
        return (values - self.mean) / self.scale


class FramePooling(nn.Module):
    """Frames of an utterance to one vector, over real frames only.

    Parameters
    ----------
    width : int
        Values of a frame.
    kind : str
        ``mean``, ``mean+std``, or ``attentive``: a mean whose weights a small network
        gives [1]_.

    References
    ----------
    .. [1] Okabe et al., "Attentive statistics pooling for deep speaker embedding",
       Interspeech 2018.
    """

    def __init__(self, width: int, kind: str) -> None:
        super().__init__()
        self.n_outputs = 2 * width if kind == "mean+std" else width
        self._width, self._kind = width, kind
        self.score = (
            nn.Sequential(
                nn.Linear(width, _ATTENTION_SIZE), nn.Tanh(), nn.Linear(_ATTENTION_SIZE, 1)
            )
            if kind == "attentive"
            else None
        )

    def forward(self, frames: torch.Tensor, n_frames: torch.Tensor) -> torch.Tensor:
        """Pool [shape=(batch, max_frames, width)] to [shape=(batch, n_outputs)]."""
        is_real = frame_mask(n_frames, frames.shape[1])[:, :, None]
        if self.score is not None:
            # Some encoders' states are in the hundreds, where the score would saturate.
            scores = self.score(functional.layer_norm(frames, (self._width,)))
            scores = scores.masked_fill(~is_real, float("-inf"))
            pooled: torch.Tensor = (frames.masked_fill(~is_real, 0.0) * scores.softmax(1)).sum(1)
            return pooled
        real = frames.masked_fill(~is_real, 0.0)
        n = n_frames[:, None]
        mean = real.sum(1) / n
        if self._kind == "mean":
            return mean
        squares = ((real - mean[:, None]) * is_real).square().sum(1) / n
        # The floor keeps the root's gradient finite where a value does not move.
        return torch.cat([mean, (squares + 1e-5).sqrt()], 1)
