"""Mel-frequency cepstral coefficients, as batched FFTs and two matrix products.

Conventions
-----------
The definition is librosa's (slaney mel scale and normalisation, power spectrum in dB,
orthonormal DCT-II), so a result can be checked against it. Frames are centred on
multiples of the hop, with zeros beyond both ends; a clip of ``n`` samples has
``1 + n // hop_length`` frames, alone or in a batch.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn

from koser.audio.augmentation import change_speed
from koser.audio.mel import hertz_to_mel, mel_to_hertz
from koser.audio.reading import SAMPLING_RATE
from koser.config import Config

_N_GROUPS = 8  # of neighbouring mel filters
_FRAMES_AT_ONCE = 128  # their spectra, 1 MB, then stay in the CPU's cache


class MfccOptions(Config):
    """Settings of the front-end.

    The defaults were chosen by inner cross-validation (docs/mfcc.md): long windows, which
    resolve the voice's harmonics, did better than the usual 25 ms.
    """

    sampling_rate: int = Field(SAMPLING_RATE, gt=0)  # Hz
    n_mfcc: int = Field(40, gt=0)
    n_mels: int = Field(128, gt=0)
    n_fft: int = Field(2048, gt=0)  # samples
    win_length: int = Field(2048, gt=0)  # samples
    hop_length: int = Field(256, gt=0)  # samples
    f_min: float = Field(20.0, ge=0)  # Hz
    f_max: float = Field(8000.0, gt=0)  # Hz
    top_db: float = Field(80.0, gt=0)  # dB below a clip's own maximum, where its floor is cut

    @model_validator(mode="after")
    def _check(self) -> MfccOptions:
        if self.n_mfcc > self.n_mels:
            raise ValueError(f"n_mfcc = {self.n_mfcc} exceeds n_mels = {self.n_mels}")
        if self.win_length > self.n_fft:
            raise ValueError(f"win_length = {self.win_length} exceeds n_fft = {self.n_fft}")
        if not self.f_min < self.f_max <= self.sampling_rate / 2:
            raise ValueError(
                f"need f_min < f_max <= {self.sampling_rate / 2:g} Hz (half the sampling rate)"
            )
        return self


class Mfcc(nn.Module):
    """The front-end as a network layer without parameters.

    Parameters
    ----------
    options : MfccOptions
        Its settings.
    """

    window: torch.Tensor
    dct_basis: torch.Tensor

    def __init__(self, options: MfccOptions) -> None:
        super().__init__()
        self.options = options
        # A window shorter than the frame lies in its middle.
        before = (options.n_fft - options.win_length) // 2
        after = options.n_fft - options.win_length - before
        window = nn.functional.pad(
            torch.hann_window(options.win_length, periodic=True), (before, after)
        )
        self.register_buffer("window", window, persistent=False)
        # float64: in float32 this one product costs ten times the accuracy of all the rest.
        dct_basis = torch.from_numpy(dct_matrix(options.n_mfcc, options.n_mels))
        self.register_buffer("dct_basis", dct_basis, persistent=False)
        # A filter is zero outside a few bins, so groups of neighbours are multiplied with only
        # the bins they share: an eighth of the work. Real and imaginary squares lie side by
        # side and are summed by the same product.
        self._bins: list[slice] = []
        filterbank = mel_filterbank(options)
        for place, filters in enumerate(np.array_split(filterbank, _N_GROUPS)):
            used = np.flatnonzero(filters.any(axis=0))
            first, last = (int(used[0]), int(used[-1])) if len(used) else (0, 0)
            basis = filters[:, first : last + 1].T.repeat(2, axis=0).astype(np.float32)
            self.register_buffer(f"mel_basis_{place}", torch.from_numpy(basis), persistent=False)
            self._bins.append(slice(2 * first, 2 * last + 2))

    def n_frames(self, n_samples: torch.Tensor) -> torch.Tensor:
        """Frames of clips of `n_samples` samples."""
        return 1 + n_samples // self.options.hop_length

    def forward(
        self, waveforms: torch.Tensor, n_samples: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Extract a batch.

        Parameters
        ----------
        waveforms : torch.Tensor [shape=(batch, n_samples)]
            Clips, zero after their end.
        n_samples : torch.Tensor [shape=(batch,)]
            Real samples of each clip.

        Returns
        -------
        features : torch.Tensor [shape=(batch, n_mfcc, n_frames)]
            MFCCs; zero in frames after a clip's end.
        n_frames : torch.Tensor [shape=(batch,)]
            Real frames of each clip.
        """
        options = self.options
        frames = nn.functional.pad(waveforms, (options.n_fft // 2, options.n_fft // 2)).unfold(
            1, options.n_fft, options.hop_length
        )
        parts = torch.split(frames, max(1, _FRAMES_AT_ONCE // len(waveforms)), dim=1)
        mel = torch.cat([self._mel(part) for part in parts], dim=1)
        decibels = 10.0 * mel.clamp_min_(1e-10).log10_()  # (batch, n_frames, n_mels)
        n_frames = self.n_frames(n_samples)
        places = torch.arange(decibels.shape[1], device=decibels.device)
        is_padding = (places >= n_frames[:, None])[:, :, None]
        # The floor hangs on a clip's own maximum, so padding must not take part in it.
        maximum = decibels.masked_fill(is_padding, -torch.inf).amax((1, 2), keepdim=True)
        decibels = torch.maximum(decibels, maximum - options.top_db).masked_fill(is_padding, 0.0)
        features = self.dct_basis @ decibels.double().transpose(1, 2)
        return features.float(), n_frames

    def _mel(self, frames: torch.Tensor) -> torch.Tensor:
        """Power in each mel band: (batch, n_frames, n_fft) to (batch, n_frames, n_mels)."""
        spectrum = torch.fft.rfft(frames * self.window)
        # (batch, n_frames, 2 * n_bins): as complex numbers lie in memory, so nothing is copied
        squares = torch.view_as_real(spectrum).flatten(2).square_()
        bands = [
            squares[:, :, bins] @ self.get_buffer(f"mel_basis_{place}")
            for place, bins in enumerate(self._bins)
        ]
        return torch.cat(bands, dim=2)


class MfccExtractor:
    """A waveform's MFCC matrix, one clip at a time, for the feature store.

    Clips never share a batch here, so what is stored cannot depend on which other
    clips were extracted, or in which order.

    Parameters
    ----------
    options : MfccOptions
        Settings of the front-end.
    speed : float
        Speed perturbation applied to the waveform first; 1.0 is none.
    """

    name = "mfcc"

    def __init__(self, options: MfccOptions, *, speed: float = 1.0) -> None:
        self.options = options
        self.speed = speed
        self._front_end = Mfcc(options)

    def describe(self) -> dict[str, object]:
        """All that the result depends on beside the waveform; part of its address."""
        return {"extractor": self.name, "speed": self.speed, **self.options.model_dump(mode="json")}

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Extract one clip.

        Parameters
        ----------
        waveform : np.ndarray [shape=(n_samples,)]
            At the options' sampling rate.

        Returns
        -------
        np.ndarray [shape=(n_mfcc, n_frames)]
            float32.
        """
        if self.speed != 1.0:
            waveform = change_speed(waveform, self.speed)
        with torch.inference_mode():
            clip = torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32))
            features, _ = self._front_end(clip[None], torch.tensor([clip.numel()]))
        result: np.ndarray = features[0].numpy()
        return result


class MfccMeanExtractor(MfccExtractor):
    """A waveform's MFCCs averaged over its frames, all of which are real: 40 numbers."""

    name = "mfcc-mean"

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Extract one clip.

        Parameters
        ----------
        waveform : np.ndarray [shape=(n_samples,)]
            At the options' sampling rate.

        Returns
        -------
        np.ndarray [shape=(n_mfcc,)]
            float32.
        """
        return np.asarray(super().__call__(waveform).mean(axis=1, dtype=np.float64), np.float32)


def mel_filterbank(options: MfccOptions) -> np.ndarray:
    """Triangular filters on Slaney's mel scale, each of unit area; see `koser.audio.mel`.

    Returns
    -------
    np.ndarray [shape=(n_mels, n_fft // 2 + 1)]
        float64.
    """
    frequencies = np.linspace(0.0, options.sampling_rate / 2, options.n_fft // 2 + 1)
    ends = hertz_to_mel(np.array([options.f_min, options.f_max]))
    edges = mel_to_hertz(np.linspace(ends[0], ends[1], options.n_mels + 2))[:, None]
    widths = np.diff(edges, axis=0)
    rising = (frequencies - edges[:-2]) / widths[:-1]
    falling = (edges[2:] - frequencies) / widths[1:]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return np.asarray(triangles * 2.0 / (edges[2:] - edges[:-2]))


def dct_matrix(n_mfcc: int, n_mels: int) -> np.ndarray:
    """Orthonormal DCT-II.

    Returns
    -------
    np.ndarray [shape=(n_mfcc, n_mels)]
        float64.
    """
    angles = np.pi / n_mels * (np.arange(n_mels) + 0.5) * np.arange(n_mfcc)[:, None]
    matrix = np.sqrt(2.0 / n_mels) * np.cos(angles)
    matrix[0] /= np.sqrt(2.0)
    return np.asarray(matrix)
