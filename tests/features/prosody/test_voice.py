import numpy as np
import pytest
import scipy.linalg

from fixtures.voices import SCHWA, noise, resonate, scaled, vowel
from koser.features.prosody.pitch import Pitch
from koser.features.prosody.voice import (
    Formants,
    describe_harmonics,
    find_formants,
    linear_prediction,
)

TIMES = np.arange(16_000) / 16_000
INNER = slice(4, -4)
VOWELS = {
    "i": ((300.0, 60.0), (2300.0, 100.0), (3000.0, 150.0), (3700.0, 200.0), (4700.0, 250.0)),
    "a": ((750.0, 80.0), (1250.0, 90.0), (2600.0, 150.0), (3500.0, 200.0), (4600.0, 250.0)),
    "u": ((320.0, 60.0), (800.0, 80.0), (2300.0, 120.0), (3400.0, 200.0), (4500.0, 250.0)),
    "schwa": SCHWA,
}


def steady(waveform, hertz):
    n_frames = len(waveform) // 256
    return Pitch(np.full(n_frames, float(hertz)), (slice(0, n_frames),))


def no_formants(n_frames):
    return Formants(np.full((3, n_frames), np.nan), np.full((3, n_frames), np.nan))


def harmonics(amplitudes, hertz):
    return sum(a * np.cos(2 * np.pi * k * hertz * TIMES + k) for k, a in amplitudes.items())


def described(waveform, hertz, frequencies=None):
    pitch = steady(waveform, hertz)
    formants = no_formants(len(pitch.hertz))
    if frequencies is not None:
        formants.frequencies[:] = np.array(frequencies)[:, None]
    return describe_harmonics(waveform, pitch, formants)


@pytest.mark.parametrize("snr_db", [0, 5, 10, 20, 30])
@pytest.mark.parametrize("hertz", [100, 173.2, 310])
def test_hnr_is_the_ratio_of_voice_to_noise(hertz, snr_db):
    voice = harmonics({k: 1 / k for k in range(1, 12)}, hertz)
    power = np.mean(np.square(voice))
    hiss = noise(1.0, level=np.sqrt(power) * 10 ** (-snr_db / 20))
    found = described(voice + hiss, hertz).hnr[INNER]
    # At 0 dB the search for the highest lag near the period leans to noise that repeats.
    assert found.mean() == pytest.approx(snr_db, abs=1.0)


def test_hnr_of_a_perfect_voice_is_high_and_of_noise_is_low():
    assert described(harmonics({1: 1, 2: 0.5, 7: 0.3}, 173.2), 173.2).hnr[INNER].min() > 35
    assert described(noise(1.0), 173.2).hnr[INNER].mean() < 0


def test_levels_of_harmonics_are_those_put_in():
    voice = harmonics({1: 1.0, 2: 0.25, 4: 0.5, 9: 0.05, 15: 0.02, 16: 0.001}, 150)
    found = described(voice, 150, [4 * 150 + 40, 9 * 150 - 50, 15 * 150 + 20])
    for name, ratio in {
        "h1_h2": 1 / 0.25, "h1_a3": 1 / 0.02, "f1_level": 0.5, "f2_level": 0.05,
    }.items():  # fmt: skip
        expected = 20 * np.log10(ratio)
        # Bins of 4 Hz miss the middle of a harmonic by 0.05 dB.
        np.testing.assert_allclose(getattr(found, name)[INNER], expected, atol=0.1, err_msg=name)


def test_without_a_formant_its_levels_are_undefined():
    found = described(harmonics({1: 1.0, 2: 0.5}, 150), 150)
    assert np.isfinite(found.h1_h2).all()
    assert np.isnan(found.h1_a3).all()
    assert np.isnan(found.f1_level).all()


@pytest.mark.parametrize("name", VOWELS)
@pytest.mark.parametrize("hertz", [90, 140, 200])
def test_formants_of_a_vowel_are_its_resonances(name, hertz):
    waveform = vowel(hertz, formants=VOWELS[name])
    found = find_formants(waveform, steady(waveform, hertz))
    for place, (frequency, _) in enumerate(VOWELS[name][:3]):
        middle = np.nanmedian(found.frequencies[place, INNER])
        # Linear prediction leans to the nearest harmonic (Markel & Gray): a third of the pitch.
        assert middle == pytest.approx(frequency, abs=max(0.07 * frequency, 0.33 * hertz))


def test_formants_of_whispered_resonances_have_their_bandwidths():
    """Noise has no harmonics to lean to, and enough of it averages to the true spectrum."""
    waveform = scaled(resonate(np.random.default_rng(0).standard_normal(64_000), SCHWA))
    found = find_formants(waveform, steady(waveform, 100))
    for place, (frequency, bandwidth) in enumerate(SCHWA[:3]):
        assert np.nanmedian(found.frequencies[place]) == pytest.approx(frequency, rel=0.1)
        assert 0.4 * bandwidth < np.nanmedian(found.bandwidths[place]) < 2.5 * bandwidth


def test_linear_prediction_solves_the_normal_equations():
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((5, 300)) * np.hamming(300)
    for row, found in zip(frames, linear_prediction(frames, 12), strict=True):
        lags = np.correlate(row, row, "full")[299:312]
        expected = scipy.linalg.solve_toeplitz(lags[:12], -lags[1:])
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_linear_prediction_of_silence_is_finite():
    assert not linear_prediction(np.zeros((2, 300)), 12).any()


def test_a_gain_changes_nothing():
    waveform = vowel(130) + noise(1.0, level=0.01)
    pitch = steady(waveform, 130)
    plain, quiet = (find_formants(each, pitch) for each in (waveform, waveform * 2.0**-6))
    np.testing.assert_allclose(quiet.frequencies, plain.frequencies, rtol=1e-4)
    first = describe_harmonics(waveform, pitch, plain)
    second = describe_harmonics(waveform * 2.0**-6, pitch, plain)
    for name in ("hnr", "h1_h2", "h1_a3", "f1_level", "f2_level"):
        np.testing.assert_allclose(getattr(second, name), getattr(first, name), atol=1e-6)
