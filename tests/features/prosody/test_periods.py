from itertools import product

import numpy as np
import pytest

from fixtures.voices import SCHWA, noise, pulse_train, resonate
from koser.features.prosody.periods import mark_periods, measure_perturbations
from koser.features.prosody.pitch import Pitch

# Formants of Peterson & Barney's (1952) men, three and two more; frequency and bandwidth, Hz.
UPPER = ((3500, 150), (4500, 200))
VOWELS = {
    "a": ((730, 80), (1090, 90), (2440, 120), *UPPER),
    "i": ((270, 50), (2290, 90), (3010, 120), *UPPER),
    "u": ((300, 50), (870, 80), (2240, 120), *UPPER),
    "e": ((530, 60), (1840, 90), (2480, 120), *UPPER),
    "schwa": SCHWA,
}
LEADS = (0.01, 0.02, 0.03)


def sung(periods, formants, lead=0.0):
    """Glottal pulses at exact instants through resonances, after `lead` seconds of silence.

    Returns
    -------
    waveform : np.ndarray [shape=(n_samples,)]
    places : np.ndarray [shape=(n_periods + 1,)]
        Of the pulses, in samples.
    """
    pulses, places = pulse_train(periods, frequency=0.0, width=1e-4)
    n_before = round(lead * 16_000)
    return resonate(np.pad(pulses, (n_before, 0)), formants), places + n_before


def irregular(kind, hertz, seed=0):
    """A second of periods that differ by some 1 %, and their local jitter in % (Praat's)."""
    if kind == "alternating":
        deviations = 0.005 * np.resize([1, -1], hertz)
    else:
        deviations = 0.01 * np.random.default_rng(seed).standard_normal(hertz)
    periods = (1 + deviations) / hertz
    return periods, 100 * np.abs(np.diff(periods)).mean() / periods.mean()


def voiced(waveform, hertz):
    pitch = steady(waveform, hertz)
    return pitch.hertz, pitch.segments[0]


def mean_jitter(waveform, hertz):
    return measure_perturbations(waveform, steady(waveform, hertz)).jitter.mean()


def behind_pulses(marks, places):
    """How far behind its pulse each mark is that lies between the first pulse and the last."""
    inside = marks[(marks > places[0]) & (marks < places[-1])]
    return inside - places[np.searchsorted(places, inside) - 1]


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


@pytest.mark.parametrize("kind", ["random", "alternating"])
@pytest.mark.parametrize(
    ("pitches", "lowest", "highest", "median"),
    [
        ((90, 110, 130), 0.65, 1.1, (0.9, 0.05)),
        ((160, 180, 200), 0.45, 1.35, (0.9, 0.1)),
        ((230, 265, 300), 0.15, 1.8, (0.55, 0.1)),
    ],
)
def test_jitter_through_resonances(kind, pitches, lowest, highest, median):
    """Of five vowels; the higher the voice, the more of the period before rings on in each."""
    shares = []
    for hertz, formants, seed in product(pitches, VOWELS.values(), range(2)):
        periods, expected = irregular(kind, hertz, seed)
        shares.append(mean_jitter(sung(periods, formants)[0], hertz) / expected)
    assert lowest <= min(shares)
    assert max(shares) <= highest
    assert np.median(shares) == pytest.approx(median[0], abs=median[1])


@pytest.mark.parametrize("vowel", VOWELS)
@pytest.mark.parametrize("kind", ["random", "alternating"])
def test_silence_before_the_first_pulse_changes_no_jitter(kind, vowel):
    for hertz, lead in product((90, 130, 200, 300), LEADS):
        periods, expected = irregular(kind, hertz)
        plain, late = (
            mean_jitter(sung(periods, VOWELS[vowel], each)[0], hertz) for each in (0.0, lead)
        )
        assert late == pytest.approx(plain, abs=0.05 * expected), (hertz, lead)


@pytest.mark.parametrize("vowel", VOWELS)
@pytest.mark.parametrize("lead", [0.0, *LEADS])
def test_marks_follow_the_pulses_through_resonances(vowel, lead):
    for hertz in (90, 130, 200, 300):
        periods, _ = irregular("random", hertz)
        waveform, places = sung(periods, VOWELS[vowel], lead)
        marks = np.concatenate(mark_periods(waveform, *voiced(waveform, hertz)))
        behind = behind_pulses(marks, places)
        assert len(behind) >= hertz - 4
        assert np.abs(behind - np.median(behind)).max() < 0.1 * 16_000 / hertz, hertz


@pytest.mark.parametrize("level", [0.0, 1e-3, 1e-2])
def test_a_chain_after_a_break_begins_on_a_pulse_again(level):
    """Two voices with a pause, on another grid, that a detector calls voiced throughout."""
    distances = []
    for hertz, pause, formants in product((90, 130, 200), (480, 600, 720), VOWELS.values()):
        voice, places = sung(np.full(hertz // 3, 1 / hertz), formants)
        waveform = np.concatenate([voice, np.zeros(pause), voice]) / np.abs(voice).max()
        waveform += noise(len(waveform) / 16_000, level=level)
        chains = mark_periods(waveform, *voiced(waveform, hertz))
        before, after = (each for each in chains if len(each) > hertz // 4)
        second = behind_pulses(after, places + len(voice) + pause)
        distances.append(np.median(second) - np.median(behind_pulses(before, places)))
    assert np.mean(np.abs(distances) < 1.5) > 0.85
    # Two halves of a wave may be as high as each other.
    assert np.abs(distances).max() < 10


def test_a_mirrored_wave_has_mirrored_marks():
    for formants in VOWELS.values():
        waveform, _ = sung(irregular("random", 120)[0], formants)
        waveform = waveform[: 256 * 60 + 128]  # what 61 frames are of
        hertz, segment = np.full(61, 120.0), slice(0, 61)
        forwards = mark_periods(waveform, hertz, segment)
        backwards = mark_periods(waveform[::-1], hertz, segment)
        assert len(forwards) == len(backwards)
        for chain, mirrored in zip(forwards, backwards[::-1], strict=True):
            np.testing.assert_allclose(len(waveform) - 1 - mirrored[::-1], chain, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_marks_go_on_and_stay_in_the_segment(seed):
    """Whatever the sound, silence included: the chains are in order, and none overlaps."""
    waveform = noise(1.0, seed=seed).astype(float)
    waveform[3000:9000] *= np.linspace(0, 1, 6000) ** 4
    waveform[11_000:12_000] = 0
    chains = mark_periods(waveform, np.full(62, 100.0 + 50 * seed), slice(8, 55))
    marks = np.concatenate([np.zeros(0), *chains])
    assert (np.diff(marks) > 0).all()
    assert ((marks >= 7.5 * 256) & (marks < 54.5 * 256)).all()
    assert all(len(each) > 2 for each in chains)


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


@pytest.mark.parametrize("seed", [5, 6, 8, 25])
def test_a_voice_whose_pitch_jumps_by_octaves_has_perturbations_within_the_limits(seed):
    rng = np.random.default_rng(seed)
    is_low = rng.integers(0, 2, 20).astype(bool)
    hertz = np.where(is_low, rng.uniform(60, 90, 20), rng.uniform(300, 600, 20)).repeat(2)
    times = np.arange(len(hertz) * 256)
    phase = np.cumsum(np.interp(times, times[::256], hertz)) / 16_000
    waveform = np.exp(-((phase % 1 - 0.5) ** 2) / 0.005) + 0.05 * rng.standard_normal(len(times))
    found = measure_perturbations(waveform, Pitch(hertz, (slice(0, len(hertz)),)))
    assert len(found.jitter)
    assert (found.jitter <= 100 * (1.3 - 1) / 1.15).all()
    assert (found.shimmer <= 20 * np.log10(1.6)).all()
