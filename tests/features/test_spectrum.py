"""The power spectrum as two matrix products against NumPy's FFT."""

import numpy as np
import pytest
import torch

from koser.features.spectrum import MatmulSpectrum


@pytest.mark.parametrize(
    ("n_fft", "hop_length", "win_length"),
    [
        (2048, 256, 2048),
        (400, 160, 400),
        (512, 160, 400),
        (64, 64, 64),
        (101, 7, 101),
        (90, 30, 61),
    ],
)
@pytest.mark.parametrize("n_extra", [0, 1, 1000])
def test_power_is_that_of_the_fft(n_fft, hop_length, win_length, n_extra):
    rng = np.random.default_rng(0)
    window = np.hanning(win_length).astype(np.float32)
    waveforms = rng.normal(size=(2, n_fft + n_extra)).astype(np.float32)
    actual = MatmulSpectrum(n_fft, hop_length, window)(torch.from_numpy(waveforms)).numpy()
    first = (n_fft - win_length) // 2
    padded = np.pad(window, (first, n_fft - win_length - first)).astype(np.float64)
    starts = range(0, n_extra + 1, hop_length)
    frames = np.stack([waveforms[:, start : start + n_fft] for start in starts], 1)
    expected = np.abs(np.fft.rfft(frames * padded)) ** 2
    assert actual.shape == expected.shape == (2, len(starts), n_fft // 2 + 1)
    # float32 sums of n_fft terms, relative to the frame's strongest bin.
    np.testing.assert_allclose(actual, expected, atol=1e-5 * expected.max())
