import numpy as np
import pytest

from fixtures.voices import noise, pulse_train
from koser.features.prosody.periods import mark_periods, measure_perturbations
from koser.features.prosody.pitch import Pitch


def steady(waveform, hertz):
    """The pitch as a detector would tell it, without the perturbations."""
    n_frames = len(waveform) // 256
    return Pitch(np.full(n_frames, float(hertz)), (slice(0, n_frames),))


@pytest.mark.parametrize("percent", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("hertz", [90, 130])
def test_jitter_of_alternating_periods(hertz, percent):
    """Periods T(1 + d) and T(1 - d) in turn differ by 2 d T: exactly 2 d of their mean."""
    signs = np.resize([1, -1], 100)
    waveform, _ = pulse_train((1 + signs * percent / 200) / hertz)
    jitter = measure_perturbations(waveform, steady(waveform, hertz)).jitter
    assert len(jitter) > 85
    # A hundredth of a sample in the period: 0.01 %.
    np.testing.assert_allclose(jitter, percent, atol=0.03)


def test_jitter_of_random_periods_is_that_of_the_pulses():
    rng = np.random.default_rng(0)
    periods = (1 + 0.01 * rng.standard_normal(120)) / 110
    waveform, _ = pulse_train(periods)
    expected = 100 * np.abs(np.diff(periods)).mean() / periods.mean()  # Praat's local jitter
    found = measure_perturbations(waveform, steady(waveform, 110)).jitter
    assert found.mean() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("depth", [0.02, 0.05, 0.15])
def test_shimmer_of_alternating_amplitudes(depth):
    amplitudes = 1 + depth * np.resize([1, -1], 101)
    waveform, _ = pulse_train(np.full(100, 1 / 112.0), amplitudes)
    found = measure_perturbations(waveform, steady(waveform, 112))
    # The highest sample misses the peak by 0.04 dB at most.
    np.testing.assert_allclose(found.shimmer, 20 * np.log10((1 + depth) / (1 - depth)), atol=0.08)
    assert found.jitter.max() < 0.05


@pytest.mark.parametrize("hertz", [75.3, 113.7, 241.9, 390.2])
def test_a_perfect_voice_has_neither(hertz):
    waveform, _ = pulse_train(np.full(round(hertz), 1 / hertz), width=min(6e-4, 0.14 / hertz))
    found = measure_perturbations(waveform, steady(waveform, hertz))
    assert len(found.jitter) > 0.8 * hertz
    assert found.jitter.mean() < 0.1
    assert found.shimmer.mean() < 0.05


def test_marks_are_a_constant_away_from_the_pulses():
    rng = np.random.default_rng(1)
    waveform, places = pulse_train((1 + 0.02 * rng.standard_normal(80)) / 100)
    pitch = steady(waveform, 100)
    (marks,) = mark_periods(waveform, pitch.hertz, pitch.segments[0])
    distance = np.array([mark - places[np.abs(places - mark).argmin()] for mark in marks])
    assert len(marks) >= 78
    assert np.abs(distance - distance.mean()).max() < 0.1  # samples; a period has 160


def test_a_gain_changes_nothing():
    waveform, _ = pulse_train(np.full(60, 1 / 100), 1 + 0.1 * np.sin(np.arange(61)))
    pitch = steady(waveform, 100)
    plain, quiet = (measure_perturbations(each, pitch) for each in (waveform, waveform * 2**-8))
    np.testing.assert_allclose(quiet.jitter, plain.jitter, atol=1e-9)
    np.testing.assert_allclose(quiet.shimmer, plain.shimmer, atol=1e-9)


def test_what_does_not_repeat_is_not_measured():
    """Noise that a detector calls voiced gives few pairs, and none that no voice could have."""
    waveform = noise(1.0).astype(float)
    found = measure_perturbations(waveform, steady(waveform, 150))
    assert len(found.jitter) < 30
    assert (found.jitter <= 100 * (1.3 - 1) / 1.15).all()
    assert (found.shimmer <= 20 * np.log10(1.6)).all()


@pytest.mark.parametrize("n_samples", [0, 1, 320])
def test_too_short_a_clip_has_no_pairs(n_samples):
    waveform = np.full(n_samples, 0.1)
    pitch = Pitch(np.array([200.0]), (slice(0, 1),))
    if n_samples == 0:
        pitch = Pitch(np.array([np.nan]), ())
    found = measure_perturbations(waveform, pitch)
    assert len(found.jitter) == len(found.shimmer) == 0
