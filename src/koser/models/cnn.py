"""A convolutional network over the MFCC matrix, for utterances of any length.

Padding
-------
Every layer that looks along time is told which frames are real: batches are padded with
zeros, convolutions see zeros there (as they do beyond a clip's ends), and batch statistics,
pooling and dropout leave them out. An utterance's logits are therefore the same alone and
in any batch, up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from koser.config import Config
from koser.features.mfcc import dct_matrix

# Sums a tensor over the processes that share a batch.
SumOver = Callable[[torch.Tensor], torch.Tensor]

_MOMENTUM = 0.1  # of the running statistics of batch normalisation


class CnnOptions(Config):
    """Size and regularisation of the network."""

    n_bands: int = Field(40, gt=0)  # bands of the smoothed log-mel spectrum it looks at
    channels: tuple[int, ...] = Field((24, 48, 64), min_length=1)  # of the 2-D convolutions
    hidden_size: int = Field(128, gt=0)  # channels of the last, 1-D convolution
    dropout: float = Field(0.4, ge=0, lt=1)  # of the utterance's statistics
    channel_dropout: float = Field(0.05, ge=0, lt=1)  # of whole channels after each convolution
    max_time_mask: int = Field(0, ge=0)  # frames; the longest stretch SpecAugment blanks, twice
    max_band_mask: int = Field(0, ge=0)  # bands; the widest stretch SpecAugment blanks


class MfccCnn(nn.Module):
    """MFCC matrix to logits.

    The cepstrum is turned back into bands (a fixed linear map): neighbouring bands are
    alike, neighbouring coefficients are not, and only the former suits a convolution. The
    network sees them twice, as they are and with the utterance's own mean removed: level
    and voice in one plane, movement free of speaker and channel in the other.
    Two-dimensional convolutions over bands and time follow, one over time alone, and mean
    and standard deviation over the real frames.

    Parameters
    ----------
    options : CnnOptions
        Size and regularisation.
    n_mfcc : int
        Coefficients per frame.
    n_classes : int
        Logits.
    """

    to_bands: torch.Tensor

    def __init__(self, options: CnnOptions, n_mfcc: int, n_classes: int) -> None:
        super().__init__()
        self.options = options
        self.standardizer = Standardizer(n_mfcc)
        to_bands = torch.from_numpy(_inverse_dct(n_mfcc, options.n_bands))
        self.register_buffer("to_bands", to_bands, persistent=False)
        blocks, n_inputs, n_bands = [], 2, options.n_bands
        for place, n_outputs in enumerate(options.channels):
            block = _Block(
                n_inputs, n_outputs, is_first=place == 0, dropout=options.channel_dropout
            )
            blocks.append(block)
            n_inputs, n_bands = n_outputs, block.n_bands(n_bands)
        self.blocks = nn.ModuleList(blocks)
        self.over_time = nn.Conv1d(
            n_inputs * n_bands, options.hidden_size, kernel_size=5, padding=2, bias=False
        )
        self.norm = MaskedBatchNorm(options.hidden_size)
        self.classifier = nn.Linear(2 * options.hidden_size, n_classes)

    def forward(self, features: torch.Tensor, n_frames: torch.Tensor) -> torch.Tensor:
        """Logits of a batch.

        Parameters
        ----------
        features : torch.Tensor [shape=(batch, n_mfcc, n_frames)]
            MFCCs, padded with zeros.
        n_frames : torch.Tensor [shape=(batch,)]
            Real frames of each utterance.

        Returns
        -------
        torch.Tensor [shape=(batch, n_classes)]
            Logits.
        """
        is_real = frame_mask(n_frames, features.shape[2])
        bands = self.to_bands @ self.standardizer(features)  # (batch, n_bands, n_frames)
        mean = (bands * is_real[:, None]).sum(2, keepdim=True) / n_frames[:, None, None]
        keep = is_real[:, None]
        if self.training:
            keep = keep * spec_augment(bands, n_frames, self.options)
        planes = torch.stack([bands, bands - mean], dim=1)  # (batch, 2, n_bands, n_frames)
        hidden = planes * keep[:, None]
        # Channels side by side in memory: convolution and pooling take about half the time.
        hidden = hidden.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            hidden, is_real = block(hidden, is_real)
        hidden = self.norm(self.over_time(hidden.flatten(1, 2)), is_real).relu()
        statistics = mean_and_deviation(hidden, is_real)
        dropped = functional.dropout(statistics, self.options.dropout, self.training)
        logits: torch.Tensor = self.classifier(dropped)
        return logits


class Standardizer(nn.Module):
    """Mean 0 per coefficient and overall variance 1, as measured on the train part.

    One scale serves all coefficients, so that the spectrum they describe keeps its shape.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, n_mfcc: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_mfcc, 1))
        self.register_buffer("scale", torch.ones(()))

    def fit(self, utterances: Iterable[np.ndarray]) -> None:
        """Measure utterances [shape=(n_mfcc, n_frames)], one pass, none kept."""
        n_frames = 0
        sums = np.zeros(len(self.mean))
        squares = np.zeros(len(self.mean))
        for utterance in utterances:
            values = utterance.astype(np.float64)
            n_frames += values.shape[1]
            sums += values.sum(axis=1)
            squares += np.square(values).sum(axis=1)
        mean = sums / n_frames
        variance = float(np.mean(squares / n_frames - mean**2))
        self.mean.copy_(torch.from_numpy(mean)[:, None])
        # Digital silence alone has no variance; any scale serves it.
        self.scale.fill_(variance**0.5 if variance > 0 else 1.0)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Standardise a batch [shape=(batch, n_mfcc, n_frames)]."""
        return (features - self.mean) / self.scale


class MaskedBatchNorm(nn.BatchNorm1d):
    """Batch normalisation whose statistics leave padded frames out; they come out as zero.

    Where several processes share a batch, `sum_over` adds up what each of them has: the
    statistics are those of the whole batch.
    """

    def __init__(self, n_channels: int) -> None:
        super().__init__(n_channels, momentum=_MOMENTUM)
        self.sum_over: SumOver | None = None

    def forward(self, hidden: torch.Tensor, is_real: torch.Tensor) -> torch.Tensor:  # type: ignore[override]  # needs the mask
        """Normalise [shape=(batch, channels, ..., n_frames)] given [shape=(batch, n_frames)]."""
        real = _as_factor(is_real, hidden.dim())
        sum_over = self.sum_over if self.training else None
        if not self.training or (sum_over is None and bool(is_real.all())):
            return super().forward(hidden) * real
        shape = (1, -1) + (1,) * (hidden.dim() - 2)
        over = [axis for axis in range(hidden.dim()) if axis != 1]
        sum_over = sum_over or _as_it_is
        n_values = sum_over(is_real.sum() * math.prod(hidden.shape[2:-1]))
        mean = sum_over((hidden * real).sum(over)) / n_values
        variance = sum_over(((hidden - mean.view(shape)).square() * real).sum(over)) / n_values
        with torch.no_grad():
            unbiased = variance * n_values / (n_values - 1).clamp_min(1)  # as torch keeps it
            self.running_mean.lerp_(mean, _MOMENTUM)  # type: ignore[union-attr]  # tracked
            self.running_var.lerp_(unbiased, _MOMENTUM)  # type: ignore[union-attr]  # tracked
        gain = self.weight * (variance + self.eps).rsqrt()
        offset = self.bias - mean * gain
        return (hidden * gain.view(shape) + offset.view(shape)) * real

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Any number of dimensions will do: channels come second, frames last."""


def has_shared_statistics(network: nn.Module) -> bool:
    """Whether other processes wait for what `network` makes of this one's share of a batch."""
    return any(
        module.sum_over is not None
        for module in network.modules()
        if isinstance(module, MaskedBatchNorm)
    )


@contextmanager
def statistics_shared(network: nn.Module, sum_over: SumOver | None) -> Iterator[None]:
    """Let batch statistics within the block be those of all processes' shares.

    Parameters
    ----------
    network : nn.Module
        Its `MaskedBatchNorm` layers are told.
    sum_over : Callable or None
        Sums a tensor over the processes, differentiably; None where there is one.
    """
    layers = [module for module in network.modules() if isinstance(module, MaskedBatchNorm)]
    for layer in layers:
        layer.sum_over = sum_over
    try:
        yield
    finally:
        for layer in layers:
            layer.sum_over = None


def _as_it_is(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


class _Block(nn.Module):
    """Convolution, pooling over bands, batch normalisation, ReLU, channel dropout.

    The first block also quarters the frame rate: emotion moves slower than phones, and
    most of the work lies after it.
    """

    def __init__(self, n_inputs: int, n_outputs: int, *, is_first: bool, dropout: float) -> None:
        super().__init__()
        self.is_first = is_first
        self.convolution = nn.Conv2d(
            n_inputs,
            n_outputs,
            kernel_size=(5, 3) if is_first else (3, 3),
            stride=2 if is_first else 1,
            padding=(2, 1) if is_first else (1, 1),
            bias=False,
        )
        self.norm = MaskedBatchNorm(n_outputs)
        self.dropout = nn.Dropout2d(dropout)

    def n_bands(self, n_bands: int) -> int:
        """Bands that leave the block when `n_bands` enter it."""
        return max(1, (-(-n_bands // 2) if self.is_first else n_bands) // 2)

    def forward(
        self, hidden: torch.Tensor, is_real: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.convolution(hidden)
        if self.is_first:
            is_real = is_real[:, ::2]
        if hidden.shape[2] > 1:
            hidden = functional.max_pool2d(hidden, (2, 1))
        hidden = self.dropout(self.norm(hidden, is_real).relu() * _as_factor(is_real, 4))
        return halve_frames(hidden, is_real) if self.is_first else (hidden, is_real)


def frame_mask(n_frames: torch.Tensor, longest: int) -> torch.Tensor:
    """1 for real frames, 0 for padding [shape=(batch, longest)], float32."""
    places = torch.arange(longest, device=n_frames.device)
    return (places < n_frames[:, None]).float()


def mean_and_deviation(hidden: torch.Tensor, is_real: torch.Tensor) -> torch.Tensor:
    """Mean and standard deviation over real frames.

    Parameters
    ----------
    hidden : torch.Tensor [shape=(batch, channels, n_frames)]
        Zero in padded frames.
    is_real : torch.Tensor [shape=(batch, n_frames)]
        1 for real frames.

    Returns
    -------
    torch.Tensor [shape=(batch, 2 * channels)]
        Means, then standard deviations.
    """
    n_frames = is_real.sum(1, keepdim=True)
    mean = hidden.sum(2) / n_frames
    squares = (hidden - mean[:, :, None]).square() * is_real[:, None]
    # The floor keeps the gradient of the root finite where a channel does not move.
    deviation = (squares.sum(2) / n_frames + 1e-4).sqrt()
    return torch.cat([mean, deviation], dim=1)


def halve_frames(hidden: torch.Tensor, is_real: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of neighbouring frames, over the real ones of each pair."""
    # An odd last frame is paired with padding: always added, as a graph has no branches.
    n_real = is_real[:, ::2] + functional.pad(is_real, (0, 1))[:, 1::2]
    pairs = hidden[..., ::2] + functional.pad(hidden, (0, 1))[..., 1::2]  # padded frames are zero
    return pairs / _as_factor(n_real.clamp_min(1.0), hidden.dim()), (n_real > 0).float()


def spec_augment(bands: torch.Tensor, n_frames: torch.Tensor, options: CnnOptions) -> torch.Tensor:
    """What SpecAugment [1]_ keeps: 0 in random stretches of time and bands, else 1.

    Parameters
    ----------
    bands : torch.Tensor [shape=(batch, n_bands, n_frames)]
        What is to be masked.
    n_frames : torch.Tensor [shape=(batch,)]
        Real frames; a stretch starts within them.
    options : CnnOptions
        Largest widths.

    Returns
    -------
    torch.Tensor [shape=(batch, n_bands, n_frames)]
        A factor; standardised values that it blanks become 0, the mean of the train part.

    References
    ----------
    .. [1] Park et al., "SpecAugment", Interspeech 2019.
    """
    batch, n_bands, longest = bands.shape
    keep = torch.ones_like(bands)

    def outside(widest: int, size: torch.Tensor, length: int) -> torch.Tensor:
        width = torch.randint(0, widest + 1, (batch, 1), device=bands.device)
        start = (torch.rand(batch, 1, device=bands.device) * size).long()
        places = torch.arange(length, device=bands.device)
        return ((places < start) | (places >= start + width)).float()

    for _ in range(2 if options.max_time_mask else 0):
        keep = keep * outside(options.max_time_mask, n_frames[:, None], longest)[:, None]
    if options.max_band_mask:
        size = torch.full_like(n_frames, n_bands)[:, None]
        keep = keep * outside(options.max_band_mask, size, n_bands)[:, :, None]
    return keep


def _inverse_dct(n_mfcc: int, n_bands: int) -> np.ndarray:
    """Coefficients to the smoothed spectrum they describe, at `n_bands` places."""
    return np.ascontiguousarray(dct_matrix(n_mfcc, n_bands).T, dtype=np.float32)


def _as_factor(is_real: torch.Tensor, n_dims: int) -> torch.Tensor:
    """(batch, n_frames) shaped to multiply (batch, ..., n_frames)."""
    return is_real.view(is_real.shape[0], *(1,) * (n_dims - 2), is_real.shape[1])
