from __future__ import annotations

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import uniform_filter1d

from koser.audio.augmentation import (
    AugmentOptions,
    augment,
    change_speed,
    mask_band,
    mask_time,
)
from koser.errors import ConfigError

RATE = 16_000
ALL_CHANGES = (
    {"speed": 0.1}, {"gain_db": 1}, {"noise_snr_db": 0}, {"time_mask": 0.5}, {"band_mask": 0.3},
)  # fmt: skip


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


@pytest.fixture
def voice():
    return np.random.default_rng(1).normal(scale=0.1, size=2 * RATE).astype(np.float32)


def drawn(measure, n_draws=200):
    return np.array([measure(np.random.default_rng(seed)) for seed in range(n_draws)])


def test_by_default_nothing_is_changed(voice):
    assert not AugmentOptions().is_on
    assert augment(voice, AugmentOptions(), np.random.default_rng(0)) is voice
    for change in ALL_CHANGES:
        options = AugmentOptions(**change)
        assert options.is_on
        assert not np.array_equal(augment(voice, options, np.random.default_rng(0)), voice)


def test_speed_factors_fill_the_allowed_range(voice):
    options = AugmentOptions(speed=0.1)
    factors = drawn(lambda rng: len(voice) / len(augment(voice, options, rng)))
    assert 0.9 <= factors.min() + 1e-4 < 0.91
    assert 1.09 < factors.max() - 1e-4 <= 1.1
    assert np.mean(factors) == pytest.approx(1, abs=0.02)


def test_gains_fill_the_allowed_range_and_change_nothing_else(voice):
    options = AugmentOptions(gain_db=6)

    def gain(rng):
        changed = augment(voice, options, rng)
        ratio = changed / voice
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
        return 20 * np.log10(ratio[0])

    gains = drawn(gain)
    assert -6 <= gains.min() + 1e-4 < -5.5
    assert 5.5 < gains.max() - 1e-4 <= 6


def test_noise_is_white_and_as_loud_as_it_is_allowed_to_be(voice):
    options = AugmentOptions(noise_snr_db=10)

    def ratio(rng):
        noise = augment(voice, options, rng) - voice
        return 10 * np.log10(np.mean(voice**2) / np.mean(noise**2))

    ratios = drawn(ratio)
    assert 10 - 0.15 <= ratios.min() < 11  # of 32 000 samples: 0.15 dB is over 4 sd
    assert 39 < ratios.max() <= 40 + 0.15
    noise = augment(voice, options, np.random.default_rng(0)) - voice
    power = (np.abs(np.fft.rfft(noise)) ** 2)[1:].reshape(8, -1).mean(axis=1)
    assert power == pytest.approx(power.mean(), rel=0.15)


@given(
    n_samples=st.integers(1, 3_000),
    level=st.sampled_from([0.0, 1e-30, 0.1, 1.0]),
    speed=st.sampled_from([0.0, 0.1, 0.5]),
    gain_db=st.sampled_from([0.0, 12.0]),
    noise_snr_db=st.sampled_from([None, -20.0, 10.0]),
    masks=st.sampled_from([(0.0, 0.0), (0.0, 0.5), (10.0, 0.0), (0.01, 0.2)]),
    seed=st.integers(0, 5),
)
@settings(max_examples=100, deadline=None)
def test_any_sound_stays_sound(n_samples, level, speed, gain_db, noise_snr_db, masks, seed):
    options = AugmentOptions(
        speed=speed, gain_db=gain_db, noise_snr_db=noise_snr_db,
        time_mask=masks[0], band_mask=masks[1],
    )  # fmt: skip
    waveform = np.full(n_samples, level, np.float32)
    changed = augment(waveform, options, np.random.default_rng(seed))
    assert changed.dtype == np.float32
    assert np.isfinite(changed).all()
    assert n_samples / (1 + speed) - 1 <= len(changed) <= n_samples / (1 - speed) + 1
    assert len(changed) > 0
    assert (waveform == np.float32(level)).all(), "the given waveform was changed"
    if level == 0:
        assert not changed.any()
    np.testing.assert_array_equal(changed, augment(waveform, options, np.random.default_rng(seed)))


def test_silenced_stretches_lie_anywhere_and_are_as_long_as_asked():
    voice = np.ones(10 * RATE, np.float32)

    def silenced(rng):
        return np.flatnonzero(mask_time(voice, 0.5, rng) == 0)

    places = [silenced(np.random.default_rng(seed)) for seed in range(400)]
    lengths = np.array([len(each) for each in places]) / RATE
    assert all((np.diff(each) == 1).all() for each in places)
    assert lengths.min() < 0.01
    assert 0.49 < lengths.max() <= 0.5
    assert lengths.mean() == pytest.approx(0.25, abs=0.03)
    starts = np.array([each[0] for each in places if len(each)]) / RATE
    assert starts.min() < 0.1
    assert 9.3 < starts.max() < 10
    assert (voice == 1).all()


def test_no_silence_takes_more_than_a_fifth_of_the_sound():
    voice = np.ones(1000, np.float32)
    taken = drawn(lambda rng: np.sum(mask_time(voice, 10, rng) == 0))
    assert 190 < taken.max() <= 200


@pytest.mark.parametrize("n_samples", [2 * RATE, 15_013])
def test_a_band_is_taken_out_and_the_rest_stays(n_samples):
    noise = np.random.default_rng(3).normal(scale=0.1, size=n_samples).astype(np.float32)
    frequencies = np.fft.rfftfreq(n_samples, 1 / RATE)

    def power(waveform):
        return uniform_filter1d(np.abs(np.fft.rfft(waveform)) ** 2, 15)

    before = power(noise)
    bands = []
    for seed in range(200):
        masked = mask_band(noise, 0.3, np.random.default_rng(seed))
        assert masked.shape == noise.shape
        assert masked.dtype == np.float32
        gone = power(masked) < 0.05 * before
        if gone.sum() < 50:
            continue
        low, high = np.quantile(frequencies[gone], [0.02, 0.98])
        inner = (frequencies > low) & (frequencies < high)
        assert gone[inner].mean() > 0.9
        assert gone[~inner].mean() < 0.05
        bands.append(librosa.hz_to_mel([low, high]))
    low, high = np.transpose(bands) / librosa.hz_to_mel(RATE / 2)
    assert (high - low).max() == pytest.approx(0.3, abs=0.02)
    assert (high - low).mean() == pytest.approx(0.15, abs=0.03)
    assert low.min() < 0.03
    assert high.max() > 0.97


@pytest.mark.parametrize(
    "change",
    [{"speed": 0.6}, {"speed": -0.1}, {"gain_db": -1}, {"time_mask": -1}, {"band_mask": 0.6}],
)
def test_a_change_that_is_none_is_refused(change):
    with pytest.raises(ValueError, match="Input should be"):
        AugmentOptions(**change)
