import librosa
import numpy as np
import pytest

from fixtures.voices import noise, vowel
from koser.features.prosody.frames import (
    count_frames,
    decibels,
    describe_spectra,
    iter_frames,
    mean_level,
)

TIMES = np.arange(16_000) / 16_000
INNER = slice(2, -2)


def tones(amplitudes):
    return sum(a * np.sin(2 * np.pi * f * TIMES) for f, a in amplitudes.items())


def test_an_amplitude_twice_as_large_is_two_to_the_two_thirds_as_loud():
    voice = vowel(150)
    ratio = describe_spectra(2 * voice).loudness / describe_spectra(voice).loudness
    np.testing.assert_allclose(ratio, 2 ** (2 / 3), rtol=1e-9)


def test_the_ear_is_most_sensitive_at_a_few_kilohertz():
    loud = {f: describe_spectra(tones({f: 0.1})).loudness[INNER].mean() for f in (60, 1000, 3500)}
    assert loud[60] < 0.5 * loud[1000]
    assert loud[1000] < loud[3500]


def test_spectral_balance_is_that_of_librosas_spectrogram():
    waveform = np.concatenate([vowel(120), noise(1.0, level=0.05)])
    spectrum = np.square(
        np.abs(
            librosa.stft(
                waveform.astype(np.float64), n_fft=512, win_length=400, hop_length=256,
                window=np.hamming(400), center=True, pad_mode="constant",
            )
        )
    )[:, : count_frames(len(waveform))]  # fmt: skip
    hertz = librosa.fft_frequencies(sr=16_000, n_fft=512)
    found = describe_spectra(waveform)
    low, high = (
        spectrum[(hertz > a) & (hertz <= b)].sum(axis=0) for a, b in ((50, 1000), (1000, 5000))
    )
    np.testing.assert_allclose(found.alpha_ratio, 10 * np.log10(low / high), atol=1e-6)
    low, high = (
        spectrum[(hertz > a) & (hertz <= b)].max(axis=0) for a, b in ((0, 2000), (2000, 5000))
    )
    np.testing.assert_allclose(found.hammarberg_index, 10 * np.log10(low / high), atol=1e-6)
    for low, high in ((0, 500), (500, 1500)):
        band = (hertz > low) & (hertz <= high)
        levels = 10 * np.log10(spectrum[band])
        expected = np.polyfit(hertz[band] / 1000, levels, 1)[0]
        np.testing.assert_allclose(getattr(found, f"slope_{low}_{high}"), expected, atol=1e-6)


def test_alpha_ratio_and_hammarberg_index_of_two_tones():
    found = describe_spectra(tones({500: 0.4, 3000: 0.02}))
    # The window's side lobes, 42 dB down, bring some of the louder tone to the other.
    np.testing.assert_allclose(found.alpha_ratio[INNER], 20 * np.log10(20), atol=0.3)
    np.testing.assert_allclose(found.hammarberg_index[INNER], 20 * np.log10(20), atol=0.3)


@pytest.mark.parametrize("slope", [-30.0, -8.0, 0.0, 12.0])
def test_the_slope_of_a_pulse_is_the_one_it_was_made_with(slope):
    """A pulse in the middle of a frame, whose spectrum falls by so many dB per kHz."""
    kilohertz = np.fft.rfftfreq(4096, 1 / 16)
    pulse = np.fft.irfft(10 ** (slope * np.minimum(kilohertz, 2.0) / 20))
    waveform = np.zeros(16_000)
    waveform[5120 - 2048 : 5120 + 2048] = np.roll(pulse, 2048)
    found = describe_spectra(waveform)
    # The window, 25 ms, hardly touches the pulse.
    assert found.slope_0_500[20] == pytest.approx(slope, abs=0.6)
    assert found.slope_500_1500[20] == pytest.approx(slope, abs=0.3)


def test_flux_is_nothing_in_a_steady_sound_and_most_between_strangers():
    steady = describe_spectra(tones({1000: 0.3}))  # 16 cycles in a hop
    assert np.isnan(steady.flux[0])
    assert steady.flux[INNER].max() < 1e-6
    quarter = 4096  # a multiple of the hop
    jump = np.concatenate([tones({500: 0.3})[:quarter], tones({5000: 0.3})[:quarter]])
    flux = describe_spectra(jump).flux
    between = quarter // 256
    assert flux[between - 1 : between + 2].sum() > 1.3  # sqrt(2), shared by the frames between
    assert np.nanmax(flux) <= np.sqrt(2)


def test_balance_and_flux_do_not_hang_on_the_level():
    waveform = vowel(170) + noise(1.0, level=0.01)
    plain, quiet = describe_spectra(waveform), describe_spectra(waveform * 0.03)
    for name in ("flux", "alpha_ratio", "hammarberg_index", "slope_0_500", "slope_500_1500"):
        np.testing.assert_allclose(getattr(quiet, name), getattr(plain, name), atol=1e-4)


def test_silence_has_no_balance_and_is_not_loud():
    found = describe_spectra(np.concatenate([np.zeros(8000), noise(0.5)]))
    assert not found.loudness[:28].any()
    for name in ("flux", "alpha_ratio", "hammarberg_index", "slope_0_500", "slope_500_1500"):
        values = getattr(found, name)
        assert np.isnan(values[:28]).all(), name
        assert np.isfinite(values[34:]).all(), name


def test_a_long_clip_is_the_same_as_its_parts():
    """Frames are computed in blocks; a second clip meets the borders elsewhere."""
    waveform = noise(10.0, seed=3) * np.repeat(np.random.default_rng(0).random(100), 1600)
    whole = describe_spectra(waveform)
    assert len(whole.flux) > 512
    part = describe_spectra(waveform[256 * 100 :])
    for name in ("loudness", "flux", "slope_0_500"):
        np.testing.assert_allclose(
            getattr(part, name)[2:], getattr(whole, name)[102:], rtol=1e-9, err_msg=name
        )


def test_frames_lie_around_their_places():
    ramp = np.arange(100.0)
    ((block, frames),) = iter_frames(ramp, 4, np.array([0, 50, 99]))
    assert block == slice(0, 3)
    assert frames.tolist() == [[0, 0, 0, 1], [48, 49, 50, 51], [97, 98, 99, 0]]
    assert count_frames(0) == count_frames(511) == 1
    assert count_frames(512) == 2


def test_the_level_of_a_sine_is_3_db_below_its_peak():
    assert mean_level(tones({1000: 0.5})) == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)))
    assert np.isnan(mean_level(np.zeros(100)))
    assert np.isnan(mean_level(np.zeros(0)))


def test_decibels_are_bounded():
    assert decibels(np.array([0.0, 1.0, np.inf])).tolist() == [-100, 0, 100]
