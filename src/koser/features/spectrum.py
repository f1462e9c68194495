"""Power spectra in operations that ONNX has and every runtime is fast at."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

# Longest inner transform. Both are then of about the same size for windows of 1024 to 4096.
_MAX_INNER = 64


class MatmulSpectrum(nn.Module):
    """Power spectrum of overlapping frames as two matrix products.

    ONNX has an operation for it, which runtimes compute 20 times slower than an FFT; one
    product with all sines is no better. With ``n_fft = n_outer * n_inner`` Cooley and Tukey's
    first step [1]_ makes two small transforms of a large one, at a tenth of the work.

    Parameters
    ----------
    n_fft, hop_length : int
        Samples of a frame, and from one frame to the next.
    window : np.ndarray [shape=(win_length,)]
        At most `n_fft` long; it lies in the frame's middle.

    References
    ----------
    .. [1] Cooley & Tukey, "An algorithm for the machine calculation of complex Fourier
       series", Mathematics of Computation 19, 1965.
    """

    window: torch.Tensor
    outer: torch.Tensor
    inner: torch.Tensor

    def __init__(self, n_fft: int, hop_length: int, window: np.ndarray) -> None:
        super().__init__()
        # Frames are rows of `n_inner` samples, so it must divide the hop too.
        common = math.gcd(n_fft, hop_length)
        n_inner = max(size for size in range(1, _MAX_INNER + 1) if common % size == 0)
        n_outer = n_fft // n_inner
        self._n_fft, self._hop_length = n_fft, hop_length
        self._n_inner, self._n_outer = n_inner, n_outer
        self._n_kept = n_fft // 2 // n_outer + 1  # inner frequencies up to half the rate
        first = (n_fft - len(window)) // 2
        padded = np.pad(window, (first, n_fft - len(window) - first))
        self._constant("window", padded.reshape(n_outer, n_inner))
        # Sample n_inner * a + b, frequency c + n_outer * d: the angle is that of
        # a * c / n_outer, plus b * (c / n_fft + d / n_inner).
        c = np.arange(n_outer)
        angles = 2 * np.pi / n_outer * np.outer(c, np.arange(n_outer))
        self._constant("outer", np.concatenate([np.cos(angles), -np.sin(angles)]))
        b, d = np.arange(n_inner)[:, None], np.arange(self._n_kept)
        turns = b * (c[:, None, None] / n_fft + d / n_inner)
        cosine, sine = np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)
        real_rows = np.concatenate([cosine, -sine], axis=2)
        imaginary_rows = np.concatenate([sine, cosine], axis=2)
        self._constant("inner", np.concatenate([real_rows, imaginary_rows], axis=1))

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Squared magnitudes of every whole frame; frame k begins at sample ``k * hop_length``.

        Parameters
        ----------
        waveforms : torch.Tensor [shape=(batch, n_samples)]
            At least `n_fft` samples each.

        Returns
        -------
        torch.Tensor [shape=(batch, n_frames, n_fft // 2 + 1)]
        """
        batch, n_samples = waveforms.shape
        n_frames = (n_samples - self._n_fft) // self._hop_length + 1
        n_used = (n_frames - 1) * self._hop_length + self._n_fft
        rows = waveforms[:, :n_used].reshape(batch, -1, self._n_inner)
        first = torch.arange(n_frames)[:, None] * (self._hop_length // self._n_inner)
        frames = rows[:, first + torch.arange(self._n_outer)].flatten(0, 1) * self.window
        halves = (self.outer @ frames).view(-1, 2, self._n_outer, self._n_inner)
        # (n_outer, batch * n_frames, 2 * n_inner): a frequency's real and imaginary parts in a row
        by_frequency = halves.permute(2, 0, 1, 3).flatten(2)
        parts = (by_frequency @ self.inner).square()
        power = parts[..., : self._n_kept] + parts[..., self._n_kept :]
        bins = power.permute(1, 2, 0).flatten(1)[:, : self._n_fft // 2 + 1]
        return bins.reshape(batch, n_frames, -1)

    def _constant(self, name: str, values: np.ndarray) -> None:
        tensor = torch.from_numpy(values.astype(np.float32))
        self.register_buffer(name, tensor, persistent=False)
