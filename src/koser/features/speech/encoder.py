"""What every speech encoder is: a front-end, then layers that can be run from any one on.

The layers of `transformers`' models are used as they are; the way through them is ours,
because theirs cannot start in the middle, lets padding change results in several
architectures, and pads Whisper to 30 s.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize

from koser.audio.reading import SAMPLING_RATE
from koser.features.speech.windows import split_windows

# On a CPU torch's oneDNN compiles every product of a layer anew for each length that it meets,
# while the other cores wait, and keeps it. So in training lengths are rounded up.
_FRAMES_TOGETHER = 32


class SpeechEncoder(nn.Module, ABC):
    """Waveforms to the hidden states of every layer.

    State 0 is what the first transformer layer takes, state `n_layers` the encoder's
    output; `n_layers + 1` states in all. An utterance's states do not depend on what it
    is batched with: padding enters no statistic, no convolution and no attention.

    Parameters
    ----------
    layers : nn.ModuleList
        The transformer layers.
    width : int
        Size of a hidden state.
    final_norm : nn.Module or None
        Applied after the last layer, where the architecture has one.
    """

    # Longest window, in seconds, that the architecture can take; None if any.
    max_seconds: float | None = None

    def __init__(self, layers: nn.ModuleList, width: int, final_norm: nn.Module | None) -> None:
        super().__init__()
        self.layers = layers
        self.width = width
        self.final_norm = final_norm

    @property
    def n_layers(self) -> int:
        """Transformer layers."""
        return len(self.layers)

    @abstractmethod
    def count_frames(self, n_samples: torch.Tensor) -> torch.Tensor:
        """Real frames of windows of `n_samples` each [both shape=(n_windows,)]."""

    def embed(
        self, waveforms: torch.Tensor, n_samples: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """State 0 of windows side by side.

        Parameters
        ----------
        waveforms : torch.Tensor [shape=(n_windows, max_samples)]
            16 kHz mono in [-1, 1], zero after a window's end.
        n_samples : torch.Tensor [shape=(n_windows,)]
            Real samples of each.

        Returns
        -------
        hidden : torch.Tensor [shape=(n_windows, max_frames, width)]
            Arbitrary after a window's last real frame.
        n_frames : torch.Tensor [shape=(n_windows,)]
            Real frames of each.
        """
        return self.embed_windows(waveforms, n_samples), self.count_frames(n_samples)

    @abstractmethod
    def embed_windows(
        self, waveforms: torch.Tensor, n_samples: torch.Tensor | None
    ) -> torch.Tensor:
        """State 0 as `embed` gives it; `n_samples` is None where no window is padded."""

    def exportable(self) -> Self:
        """A copy, in evaluation mode, made of operations that ONNX has."""
        copied = copy.deepcopy(self).eval()
        for parent in list(copied.modules()):
            for name, module in list(parent.named_children()):
                if isinstance(module, nn.Conv1d) and parametrize.is_parametrized(module):
                    setattr(parent, name, _without_parametrization(module))
        return copied

    def run(
        self,
        hidden: torch.Tensor,
        n_frames: torch.Tensor | None,
        first: int = 0,
        last: int | None = None,
    ) -> list[torch.Tensor]:
        """States `first` + 1 to `last` from state `first`.

        Parameters
        ----------
        hidden : torch.Tensor [shape=(n_windows, max_frames, width)]
            State `first`.
        n_frames : torch.Tensor [shape=(n_windows,)] or None
            Real frames of each window; the others are not attended to. None where all are real.
        first, last : int
            Which states; `last` is `n_layers` unless given.

        Returns
        -------
        list[torch.Tensor] [each shape=(n_windows, max_frames, width)]
            One per state, in order; with some more frames, none of them real, where gradients
            are wanted of a CPU.
        """
        last = self.n_layers if last is None else last
        if n_frames is not None and torch.is_grad_enabled() and hidden.device.type == "cpu":
            hidden = functional.pad(hidden, (0, 0, 0, -hidden.shape[1] % _FRAMES_TOGETHER))
        is_real = None if n_frames is None else frame_mask(n_frames, hidden.shape[1])
        has_padding = is_real is not None and not bool(is_real.all())
        context = self._context(hidden, is_real if has_padding else None)
        states = []
        for index in range(first, last):
            hidden = self._run_layer(self.layers[index], hidden, context)
            is_last = index + 1 == self.n_layers
            states.append(self.final_norm(hidden) if is_last and self.final_norm else hidden)
        return states

    def forward(
        self, waveforms: torch.Tensor, n_samples: torch.Tensor
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """All states, 0 first, and the real frames of each window; see `embed`."""
        hidden, n_frames = self.embed(waveforms, n_samples)
        return [hidden, *self.run(hidden, n_frames)], n_frames

    def _context(self, hidden: torch.Tensor, is_real: torch.Tensor | None) -> object:
        """What every layer is told beside its input: here, a mask for attention."""
        return None if is_real is None else is_real[:, None, None, :]

    def _run_layer(self, layer: nn.Module, hidden: torch.Tensor, context: object) -> torch.Tensor:
        result: torch.Tensor = layer(hidden, attention_mask=context)
        return result


def larger(one: int, other: int) -> int:
    """The larger of two sizes; unlike `max`, in an exported graph too, where sizes are tensors."""
    return one.clamp_min(other) if isinstance(one, torch.Tensor) else max(one, other)


def frame_mask(n_frames: torch.Tensor, max_frames: int) -> torch.Tensor:
    """Which frames are real [shape=(n_windows, max_frames), dtype=bool]."""
    return torch.arange(max_frames, device=n_frames.device) < n_frames[:, None]


def _without_parametrization(convolution: Any) -> nn.Conv1d:  # Any: its sizes are tuples
    # torch's own way changes the class, which a copy shares with what it was copied from.
    plain = nn.Conv1d(
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size,
        convolution.stride,
        convolution.padding,
        convolution.dilation,
        convolution.groups,
        bias=convolution.bias is not None,
    )
    plain.weight = nn.Parameter(convolution.weight.detach().clone())
    plain.bias = convolution.bias
    return plain.requires_grad_(False).eval()


def pad_waveforms(waveforms: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Put waveforms side by side, zero after each one's end.

    Returns
    -------
    waveforms : torch.Tensor [shape=(n_waveforms, max_samples)]
        float32.
    n_samples : torch.Tensor [shape=(n_waveforms,)]
        Real samples of each.
    """
    n_samples = [len(waveform) for waveform in waveforms]
    padded = np.zeros((len(waveforms), max(n_samples)), np.float32)
    for row, waveform in zip(padded, waveforms, strict=True):
        row[: len(waveform)] = waveform
    return torch.from_numpy(padded), torch.tensor(n_samples)


def windows_of(
    waveforms: Sequence[np.ndarray], seconds: float
) -> tuple[list[np.ndarray], list[int]]:
    """Cut waveforms into windows of at most `seconds`.

    Returns
    -------
    windows : list[np.ndarray] [each shape=(n_window_samples,)]
        Those of all waveforms, in order.
    owners : list[int]
        For each window, which waveform it is of.
    """
    windows: list[np.ndarray] = []
    owners: list[int] = []
    for owner, waveform in enumerate(waveforms):
        parts = split_windows(waveform, round(seconds * SAMPLING_RATE))
        windows += list(parts)
        owners += [owner] * len(parts)
    return windows, owners
