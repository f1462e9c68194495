"""The wav2vec 2.0 family: strided convolutions over samples, then a transformer.

wav2vec 2.0, HuBERT, WavLM, XLS-R, UniSpeech(-SAT) and data2vec-audio share it [1]_.
Padding could change a result in four places, each dealt with where it occurs: the
normalisation of the waveform, the group normalisation over time of the first layer
(base models), the positional convolution, and attention.

References
----------
.. [1] Baevski et al., "wav2vec 2.0: A framework for self-supervised learning of speech
   representations", NeurIPS 2020.
"""

from __future__ import annotations

import warnings
from typing import Any, Self

import torch
from torch import nn
from torch.nn import functional

from koser.features.speech.encoder import SpeechEncoder, frame_mask, larger


class ConvolutionalEncoder(SpeechEncoder):
    """An encoder of the wav2vec 2.0 family.

    Parameters
    ----------
    model : nn.Module
        A base model of `transformers`, such as ``Wav2Vec2Model``.
    normalize : bool
        Whether a waveform is brought to zero mean and unit variance, as its feature
        extractor says.
    """

    convolutions: nn.ModuleList
    positions: Any  # its parts differ between architectures

    def __init__(self, model: Any, *, normalize: bool) -> None:
        config = model.config
        encoder = model.encoder
        is_prenorm = getattr(config, "do_stable_layer_norm", False)
        super().__init__(
            encoder.layers, config.hidden_size, encoder.layer_norm if is_prenorm else None
        )
        self.convolutions = model.feature_extractor.conv_layers
        self.projection = model.feature_projection
        self.positions = encoder.pos_conv_embed
        # Where it stands before the layers it belongs to state 0, else it is the final one.
        self.embedding_norm = None if is_prenorm else encoder.layer_norm
        self._geometry = tuple(zip(config.conv_kernel, config.conv_stride, strict=True))
        self._normalize = normalize

    def train(self, mode: bool = True) -> Self:
        """Switch dropout on or off; batch normalisation keeps to what pretraining measured."""
        super().train(mode)
        norm = getattr(self.positions, "batch_norm", None)
        if norm is not None:
            # A batch's own statistics would have padding in them.
            norm.eval()
        return self

    def count_frames(self, n_samples: torch.Tensor) -> torch.Tensor:
        """Real frames: those whose receptive field lies within the sound, at least one."""
        for kernel, stride in self._geometry:
            n_samples = torch.div(n_samples - kernel, stride, rounding_mode="floor") + 1
        return n_samples.clamp_min(1)

    @property
    def strides(self) -> tuple[int, ...]:
        """Of each convolution."""
        return tuple(stride for _, stride in self._geometry)

    @property
    def receptive_field(self) -> int:
        """Samples that one frame sees (400 in all published models)."""
        size = 1
        for kernel, stride in reversed(self._geometry):
            size = (size - 1) * stride + kernel
        return size

    def embed_windows(
        self, waveforms: torch.Tensor, n_samples: torch.Tensor | None
    ) -> torch.Tensor:
        """State 0 of windows side by side; see `SpeechEncoder.embed`."""
        if self._normalize:
            waveforms = _standardize(waveforms, n_samples)
        # A click shorter than one frame is heard with silence after it.
        n_missing = larger(self.receptive_field - waveforms.shape[1], 0)
        waveforms = functional.pad(waveforms, (0, n_missing))
        n_heard = None if n_samples is None else n_samples.clamp_min(self.receptive_field)
        hidden = self._convolve(waveforms, n_heard)
        hidden = self.projection(hidden.transpose(1, 2))
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        is_real = None
        if n_samples is not None:
            is_real = frame_mask(self.count_frames(n_samples), hidden.shape[1])[:, :, None]
            # Where the sound has ended, a convolution must see what it sees at the end of a
            # window that is alone: zeros.
            hidden = hidden * is_real
        hidden = hidden + self._position(hidden, is_real)
        result: torch.Tensor = hidden
        return result if self.embedding_norm is None else self.embedding_norm(result)

    def _convolve(self, waveforms: torch.Tensor, n_samples: torch.Tensor | None) -> torch.Tensor:
        hidden = waveforms[:, None]
        for index, layer in enumerate(self.convolutions):
            if n_samples is None:
                hidden = layer(hidden)
            elif isinstance(getattr(layer, "layer_norm", None), nn.GroupNorm):
                kernel, stride = self._geometry[index]
                n_samples = torch.div(n_samples - kernel, stride, rounding_mode="floor") + 1
                hidden = _over_real_frames(layer, hidden, n_samples)
            else:
                hidden = layer(hidden)
        return hidden

    def _position(self, hidden: torch.Tensor, is_real: torch.Tensor | None) -> torch.Tensor:
        # data2vec stacks several convolutions; each must see zeros after the end.
        keep = 1.0 if is_real is None else is_real.transpose(1, 2)
        convolutions = getattr(self.positions, "layers", None)
        if convolutions is not None:
            positions = hidden.transpose(1, 2)
            for convolution in convolutions:
                positions = convolution(positions) * keep
            return positions.transpose(1, 2)
        norm = getattr(self.positions, "batch_norm", None)
        if norm is None:
            result: torch.Tensor = self.positions(hidden)
            return result
        # Batch normalisation (some HuBERTs) makes something of the zeros.
        positions = norm(hidden.transpose(1, 2)) * keep
        positions = self.positions.padding(self.positions.conv(positions))
        result = self.positions.activation(positions).transpose(1, 2)
        return result


class WavLmEncoder(ConvolutionalEncoder):
    """WavLM: the first layer's relative positions are passed to all others."""

    @property
    def n_heads(self) -> int:
        """Heads of its attention."""
        heads: int = self.layers[0].attention.num_heads  # type: ignore[assignment,union-attr]
        return heads

    def _context(self, hidden: torch.Tensor, is_real: torch.Tensor | None) -> object:
        n_windows, n_frames, _ = hidden.shape
        attention: Any = self.layers[0].attention
        bias = attention.compute_bias(n_frames, n_frames)
        bias = bias.to(hidden.device).expand(n_windows, *bias.shape)
        bias = bias.reshape(-1, n_frames, n_frames)
        return (None if is_real is None else is_real.long()), bias

    def _run_layer(self, layer: nn.Module, hidden: torch.Tensor, context: Any) -> torch.Tensor:
        mask, bias = context
        with warnings.catch_warnings():
            # Its mask is of booleans, its bias is not: torch would rather have them alike.
            warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")
            result: torch.Tensor = layer(hidden, attention_mask=mask, position_bias=bias)[0]
        return result


def _standardize(waveforms: torch.Tensor, n_samples: torch.Tensor | None) -> torch.Tensor:
    """Zero mean and unit variance over each window's own samples, as the models were trained."""
    if n_samples is None:
        centred = waveforms - waveforms.mean(1, keepdim=True)
        return centred / torch.sqrt(centred.square().mean(1, keepdim=True) + 1e-7)
    is_real = frame_mask(n_samples, waveforms.shape[1])
    n = n_samples[:, None]
    mean = waveforms.sum(1, keepdim=True) / n
    centred = (waveforms - mean) * is_real
    variance = centred.square().sum(1, keepdim=True) / n
    return centred / torch.sqrt(variance + 1e-7)


def _over_real_frames(layer: Any, hidden: torch.Tensor, n_outputs: torch.Tensor) -> torch.Tensor:
    """Apply a layer that normalises over time, such that padding has no part in it.

    The convolution of padding is cut off; what is left is normalised window by window.
    """
    convolved = layer.conv(hidden)
    counts = n_outputs.tolist()
    if min(counts) == convolved.shape[2]:
        return _activate(layer, convolved)
    result = torch.zeros_like(convolved)
    for row, count in enumerate(counts):
        result[row : row + 1, :, :count] = _activate(layer, convolved[row : row + 1, :, :count])
    return result


def _activate(layer: Any, convolved: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = layer.activation(layer.layer_norm(convolved))
    return result
