from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koser.audio.augmentation import change_speed
from koser.errors import ConfigError

RATE = 16_000


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.1, 1.25, 2.0])
def test_a_faster_voice_is_higher_by_the_same_factor(factor):
    waveform = np.sin(2 * np.pi * 200 * np.arange(2 * RATE) / RATE)
    changed = change_speed(waveform, factor)
    spectrum = np.abs(np.fft.rfft(changed * np.hanning(len(changed)), 16 * RATE))
    peak = np.argmax(spectrum) / 16  # Hz
    assert peak == pytest.approx(200 * factor, abs=0.1)
    assert np.abs(changed[500:-500]).max() == pytest.approx(1, abs=1e-3)


def test_a_faster_voice_says_the_same_thing_at_the_same_share_of_its_time():
    waveform = np.zeros(RATE)
    waveform[RATE // 4] = 1
    changed = change_speed(waveform, 1.1)
    assert np.argmax(changed) == round(RATE / 4 / 1.1)


@given(n_samples=st.integers(1, 5_000), percent=st.integers(50, 200))
@settings(max_examples=60, deadline=None)
def test_the_length_is_divided_by_the_factor(n_samples, percent):
    changed = change_speed(np.ones(n_samples, np.float32), percent / 100)
    assert abs(len(changed) - n_samples / (percent / 100)) <= 0.5 + 1e-9
    assert changed.dtype == np.float32


def test_factor_one_returns_the_waveform_itself():
    waveform = np.ones(10, np.float32)
    assert change_speed(waveform, 1.0) is waveform


@pytest.mark.parametrize("factor", [0.49, 2.01, 0.0, -1.0, np.nan, np.inf])
def test_a_factor_out_of_range_is_refused(factor):
    with pytest.raises(ConfigError, match=r"out of range\. Give one from 0\.5 to 2\.0"):
        change_speed(np.ones(10, np.float32), factor)
