import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from koser.features.speech.encoder import frame_mask, pad_waveforms, windows_of
from koser.features.speech.windows import split_windows


@given(n_samples=st.integers(1, 2000), max_samples=st.integers(1, 300))
def test_windows_cover_everything_in_as_few_equal_parts_as_possible(n_samples, max_samples):
    windows = split_windows(np.arange(n_samples), max_samples)
    assert len(windows) == -(-n_samples // max_samples)
    assert windows.shape[1] <= max_samples
    # In order, each one a stretch of the original, none beyond its end, no gap between two.
    np.testing.assert_array_equal(np.diff(windows, axis=1), 1)
    assert windows[0, 0] == 0
    assert windows[-1, -1] == n_samples - 1
    gaps = windows[1:, 0] - windows[:-1, -1]
    assert np.all(gaps <= 1)
    # Two neighbours share at most as many samples as there are windows.
    assert np.all(1 - gaps <= len(windows))


def test_a_short_waveform_is_its_own_only_window():
    waveform = np.arange(10.0)
    np.testing.assert_array_equal(split_windows(waveform, 10), [waveform])


def test_windows_of_several_waveforms_know_whose_they_are():
    waveforms = [np.arange(n, dtype=np.float32) for n in (8000, 24_001, 100)]
    windows, owners = windows_of(waveforms, 0.5)
    assert owners == [0, 1, 1, 1, 1, 2]
    assert [len(window) for window in windows] == [8000, 6001, 6001, 6001, 6001, 100]
    np.testing.assert_array_equal(windows[-1], waveforms[2])
    assert windows[4][-1] == 24_000


def test_waveforms_are_padded_with_zeros_on_the_right():
    padded, n_samples = pad_waveforms([np.array([1.0, 2.0]), np.array([3.0, 4.0, 5.0])])
    assert padded.tolist() == [[1, 2, 0], [3, 4, 5]]
    assert n_samples.tolist() == [2, 3]
    assert frame_mask(n_samples, 3).tolist() == [[True, True, False], [True, True, True]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_padded_waveforms_are_single_precision(dtype):
    assert str(pad_waveforms([np.zeros(3, dtype)])[0].dtype) == "torch.float32"
