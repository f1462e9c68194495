"""Trained systems as one computation from waveform to probabilities, in ONNX's operations.

The same networks and settings as the systems themselves: only front-ends are replaced whose
operations ONNX lacks. A graph takes one whole utterance, so there is no padding to guard
against.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from koser.audio.reading import SAMPLING_RATE
from koser.features.mfcc import MfccOptions, dct_matrix, mel_filterbank
from koser.features.spectrum import MatmulSpectrum
from koser.features.speech.encoder import SpeechEncoder, larger
from koser.models.cnn import MfccCnn
from koser.models.speech import FineTunedEncoder, FramesHead, StatisticsHead

# Of the operators. 17 has all that is needed, and runtimes of 2022 know it.
OPSET_VERSION = 17


def write_graph(
    to_logits: nn.Module, temperature: float, path: Path, *, input_name: str, output_name: str
) -> None:
    """Write a graph as ONNX: a waveform of any length in, calibrated probabilities out.

    torch has a newer exporter (``dynamo=True``). It cannot express attention over a number of
    frames that the graph itself computes, and takes half a minute where this one takes one
    second. This one records what happens to one waveform, so nothing in a graph may branch
    on a length; whoever exports compares the result with the system (`inference.export`).

    Parameters
    ----------
    to_logits : nn.Module
        What `System.to_graph` returned.
    temperature : float
        Divides the logits.
    path : Path
        The file.
    input_name, output_name : str
        What the graph's input [shape=(n_samples,)] and output [shape=(n_labels,)] are called.
    """
    # Long enough for several windows.
    example = 0.1 * torch.randn(65 * SAMPLING_RATE, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # that it is older, and of every branch it does not see
        torch.onnx.export(
            CalibratedGraph(to_logits, temperature).eval(),
            (example,),
            str(path),
            input_names=[input_name],
            output_names=[output_name],
            dynamic_axes={input_name: {0: "n_samples"}},
            opset_version=OPSET_VERSION,
            dynamo=False,
        )


class CalibratedGraph(nn.Module):
    """A system's logits as calibrated probabilities.

    Parameters
    ----------
    to_logits : nn.Module
        Maps a waveform [shape=(n_samples,)] to logits [shape=(1, n_labels)].
    temperature : float
        Divides the logits.
    """

    def __init__(self, to_logits: nn.Module, temperature: float) -> None:
        super().__init__()
        self.to_logits = to_logits
        self.temperature = temperature

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Probabilities [shape=(n_labels,)] of 16 kHz mono [shape=(n_samples,)]."""
        logits: torch.Tensor = self.to_logits(waveform)
        return (logits[0] / self.temperature).softmax(0)


class MfccGraph(nn.Module):
    """MFCC + CNN on a waveform; see `koser.features.mfcc.Mfcc` for the definition.

    Parameters
    ----------
    options : MfccOptions
        The front-end.
    network : MfccCnn
        Trained.
    """

    filters: torch.Tensor
    dct_basis: torch.Tensor

    def __init__(self, options: MfccOptions, network: MfccCnn) -> None:
        super().__init__()
        window = torch.hann_window(options.win_length, periodic=True).numpy()
        self.spectrum = MatmulSpectrum(options.n_fft, options.hop_length, window)
        self.network = network
        self._n_fft, self._top_db = options.n_fft, options.top_db
        filters = np.ascontiguousarray(mel_filterbank(options).T, np.float32)
        self.register_buffer("filters", torch.from_numpy(filters), persistent=False)
        dct_basis = torch.from_numpy(dct_matrix(options.n_mfcc, options.n_mels))
        self.register_buffer("dct_basis", dct_basis, persistent=False)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Logits [shape=(1, n_labels)] of [shape=(n_samples,)]."""
        half = self._n_fft // 2
        power = self.spectrum(functional.pad(waveform[None], (half, half)))
        decibels = 10.0 * (power @ self.filters).clamp_min(1e-10).log10()
        floor = decibels.amax((1, 2), keepdim=True) - self._top_db
        decibels = torch.maximum(decibels, floor)  # (1, n_frames, n_mels)
        features = (self.dct_basis @ decibels.double().transpose(1, 2)).float()
        logits: torch.Tensor = self.network(features, torch.full((1,), features.shape[2]))
        return logits


class _Windows(nn.Module):
    """`koser.features.speech.windows.split_windows` in operations of a graph."""

    def __init__(self, max_seconds: float) -> None:
        super().__init__()
        self._max_samples = round(max_seconds * SAMPLING_RATE)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        n_samples = waveform.shape[0]
        n_windows = (n_samples + self._max_samples - 1) // self._max_samples
        length = (n_samples + n_windows - 1) // n_windows
        # A single window starts at 0 whatever it is divided by.
        starts = torch.arange(n_windows) * (n_samples - length) // larger(n_windows - 1, 1)
        return waveform[starts[:, None] + torch.arange(length)]


class StatisticsGraph(nn.Module):
    """A frozen encoder and a head on its statistics.

    Parameters
    ----------
    encoder : SpeechEncoder
        What `SpeechEncoder.exportable` made.
    head : StatisticsHead
        Trained.
    window_seconds : float
        Longest window.
    keep : torch.dtype
        What the head was trained on its features in: they are rounded to it.
    """

    def __init__(
        self, encoder: SpeechEncoder, head: StatisticsHead, window_seconds: float, keep: torch.dtype
    ) -> None:
        super().__init__()
        self.windows = _Windows(window_seconds)
        self.encoder, self.head, self._keep = encoder, head, keep

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Logits [shape=(1, n_labels)] of [shape=(n_samples,)]."""
        hidden = self.encoder.embed_windows(self.windows(waveform), None)
        statistics = []
        for state in [hidden, *self.encoder.run(hidden, None)]:
            frames = state.flatten(0, 1)  # windows are equally long, so all frames weigh the same
            mean = frames.mean(0)
            deviation = (frames - mean).square().mean(0).sqrt()
            statistics.append(torch.stack([mean, deviation]))
        logits: torch.Tensor = self.head(torch.stack(statistics)[None].to(self._keep).float())
        return logits


class FramesGraph(nn.Module):
    """A frozen encoder and a head that pools the frames of some of its states.

    Parameters
    ----------
    encoder, head, window_seconds, keep
        As of `StatisticsGraph`; the head is a `FramesHead`.
    states : Sequence[int]
        Which states the head takes.
    """

    def __init__(
        self,
        encoder: SpeechEncoder,
        head: FramesHead,
        window_seconds: float,
        keep: torch.dtype,
        states: Sequence[int],
    ) -> None:
        super().__init__()
        self.windows = _Windows(window_seconds)
        self.encoder, self.head, self._keep, self._states = encoder, head, keep, tuple(states)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Logits [shape=(1, n_labels)] of [shape=(n_samples,)]."""
        hidden = self.encoder.embed_windows(self.windows(waveform), None)
        states = [hidden, *self.encoder.run(hidden, None, last=max(self._states))]
        frames = torch.stack([states[index].flatten(0, 1).T for index in self._states])[None]
        frames = frames.to(self._keep).float()  # (1, n_states, width, n_frames)
        logits: torch.Tensor = self.head(frames, torch.full((1,), frames.shape[3]))
        return logits


class FineTunedGraph(nn.Module):
    """An encoder whose last layers were trained, and its head.

    Parameters
    ----------
    network : FineTunedEncoder
        Trained.
    window_seconds : float
        Longest window.
    keep : torch.dtype
        What the trunk's output was kept in.
    """

    def __init__(self, network: FineTunedEncoder, window_seconds: float, keep: torch.dtype) -> None:
        super().__init__()
        self.windows = _Windows(window_seconds)
        self.encoder = network.encoder.exportable()
        self.pooling, self.classifier = network.pooling, network.classifier
        self._first, self._states = network.first, network.states
        self._keep = torch.float32 if network.from_waveforms else keep

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Logits [shape=(1, n_labels)] of [shape=(n_samples,)]."""
        hidden = self.encoder.embed_windows(self.windows(waveform), None)
        if self._first:
            hidden = self.encoder.run(hidden, None, last=self._first)[-1]
        hidden = hidden.to(self._keep).float()
        states = [hidden, *self.encoder.run(hidden, None, self._first)]
        pooled = []
        for index in self._states:
            frames = states[index].flatten(0, 1)[None]
            pooled.append(self.pooling(frames, torch.full((1,), frames.shape[1])))
        logits: torch.Tensor = self.classifier(torch.stack(pooled, 1))
        return logits
