from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from koser.audio.resampling import StreamResampler, resample, resampled_length
from koser.errors import AudioError

TO = 16_000
RATES = [8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000]
EDGE = 320  # 20 ms of output: where a tone that starts from silence rings


def sine(frequency, rate, n_seconds=0.5):
    return np.sin(2 * np.pi * frequency * np.arange(int(n_seconds * rate)) / rate)


@pytest.mark.parametrize(
    ("rate", "frequency"),
    [(rate, tone) for rate in RATES for tone in (100, 1_000, 3_400, 7_200) if tone < 0.45 * rate],
)
def test_a_tone_in_the_passband_keeps_amplitude_and_phase(rate, frequency):
    resampled = resample(sine(frequency, rate), rate, TO)
    # 0.01 dB is 1.2e-3 of the amplitude; a delay of one output sample would be far more.
    expected = sine(frequency, TO)
    np.testing.assert_allclose(
        resampled[EDGE:-EDGE], expected[EDGE : len(resampled) - EDGE], rtol=0, atol=1.2e-3
    )


@pytest.mark.parametrize("rate", [32_000, 44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("frequency", [8_000, 8_200, 8_800, 10_000, 15_900])
def test_a_tone_above_the_new_nyquist_frequency_leaves_less_than_minus_110_db(rate, frequency):
    resampled = resample(sine(frequency, rate), rate, TO)[EDGE:-EDGE]
    assert np.sqrt(np.mean(np.square(resampled, dtype=np.float64))) < 10 ** (-110 / 20)


@pytest.mark.parametrize("rate", RATES)
def test_an_impulse_keeps_its_time(rate):
    impulse = np.zeros(rate)
    impulse[rate // 4] = 1
    resampled = resample(impulse, rate, TO)
    peak = int(np.argmax(np.abs(resampled)))
    assert peak == round(rate // 4 / rate * TO)
    if rate % TO == 0 and peak * (rate // TO) == rate // 4:  # linear phase: it is symmetric
        np.testing.assert_allclose(
            resampled[peak : peak + 80], resampled[peak - 79 : peak + 1][::-1], atol=1e-6
        )


@pytest.mark.parametrize("rate", RATES)
def test_speech_band_noise_agrees_with_scipy(rate):
    rng = np.random.default_rng(rate)
    band = scipy.signal.butter(6, [100, 3_000], "bandpass", fs=rate, output="sos")
    noise = scipy.signal.sosfilt(band, rng.standard_normal(rate))
    common = math.gcd(rate, TO)
    expected = scipy.signal.resample_poly(noise, TO // common, rate // common)
    # SciPy's default filter is 60 dB deep and flat to 0.3 % here: 1 % of the peak.
    difference = (resample(noise, rate, TO) - expected)[EDGE:-EDGE]
    assert np.abs(difference).max() < 0.01 * np.abs(expected).max()


@pytest.mark.parametrize("rate", [*RATES, TO])
@pytest.mark.parametrize("block_length", [1, 37, 1_000, 40_000])
def test_a_stream_gives_the_samples_of_the_whole(rate, block_length):
    noise = np.random.default_rng(0).standard_normal(80 * block_length % 70_001 + 999)
    stream = StreamResampler(rate, TO)
    blocks = [
        stream.feed(noise[start : start + block_length])
        for start in range(0, len(noise), block_length)
    ]
    joined = np.concatenate([*blocks, stream.flush()])
    np.testing.assert_array_equal(joined, resample(noise, rate, TO))


def test_a_stream_owes_no_more_than_a_few_milliseconds():
    stream = StreamResampler(48_000, TO)
    n_settled = sum(len(stream.feed(np.zeros(480))) for _ in range(100))
    assert 16_000 - n_settled < 0.1 * TO


@given(
    n_samples=st.integers(0, 2_000),
    rates=st.tuples(st.integers(1_000, 200_000), st.integers(1_000, 200_000)),
    cuts=st.lists(st.integers(0, 2_000), max_size=5),
)
@settings(max_examples=150, deadline=None)
def test_the_length_is_the_ratio_rounded_up_however_the_waveform_is_cut(n_samples, rates, cuts):
    waveform = np.random.default_rng(n_samples).standard_normal(n_samples).astype(np.float32)
    expected_length = math.ceil(n_samples * rates[1] / rates[0])
    assert resampled_length(n_samples, *rates) == expected_length
    whole = resample(waveform, *rates)
    assert (whole.shape, whole.dtype) == ((expected_length,), np.float32)
    stream = StreamResampler(*rates)
    parts = [
        stream.feed(part) for part in np.split(waveform, sorted(min(c, n_samples) for c in cuts))
    ]
    np.testing.assert_array_equal(np.concatenate([*parts, stream.flush()]), whole)


@given(
    seed=st.integers(0, 2**32 - 1),
    rate=st.sampled_from([*RATES, TO]),
    weights=st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
)
@settings(max_examples=30, deadline=None)
def test_resampling_is_linear(seed, rate, weights):
    one, other = np.random.default_rng(seed).uniform(-1, 1, (2, 1_500))
    mixed = resample(weights[0] * one + weights[1] * other, rate, TO)
    expected = weights[0] * resample(one, rate, TO) + weights[1] * resample(other, rate, TO)
    np.testing.assert_allclose(mixed, expected, rtol=0, atol=1e-5)  # float32 rounding


def test_equal_rates_give_an_equal_new_array():
    waveform = np.arange(5, dtype=np.float32)
    resampled = resample(waveform, TO, TO)
    np.testing.assert_array_equal(resampled, waveform)
    assert not np.shares_memory(resampled, waveform)


@pytest.mark.parametrize("rates", [(0, 16_000), (16_000, 0), (-1, 16_000)])
def test_a_rate_that_is_not_positive_is_refused(rates):
    with pytest.raises(AudioError, match=r"Cannot resample from .* Give two positive rates"):
        resample(np.zeros(10), *rates)


def test_channels_are_refused():
    with pytest.raises(AudioError, match=r"got \(10, 2\)\. Average the channels first"):
        resample(np.zeros((10, 2)), 48_000, TO)
