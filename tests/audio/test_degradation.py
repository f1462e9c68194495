"""Degraded sound, against what each degradation is defined as."""

import numpy as np
import pytest
import scipy.signal

from koser.audio.degradation import (
    KINDS,
    Degradation,
    compand,
    degrade,
    draw_at,
    list_degradations,
    mix_babble,
    reverberate,
    room_response,
    send_by_opus,
    send_by_telephone,
)
from koser.audio.encoding import encode_opus
from koser.audio.reading import load
from koser.demo import corpus_folder
from koser.errors import AudioError, ConfigError

RATE = 16_000


@pytest.fixture(scope="module")
def sentences():
    return [load(path) for path in sorted(corpus_folder().glob("*.flac"))[:6]]


def tone(frequency, *, seconds=1.0, sampling_rate=RATE, level=0.3):
    times = np.arange(round(seconds * sampling_rate)) / sampling_rate
    return (level * np.sin(2 * np.pi * frequency * times)).astype(np.float32)


def power(waveform):
    return np.mean(np.square(waveform, dtype=np.float64))


@pytest.mark.parametrize("kind", ["noise", "babble"])
@pytest.mark.parametrize("ratio", KINDS["noise"].levels)
def test_the_ratio_of_signal_to_noise_is_what_was_asked_for(kind, ratio, sentences):
    clean, *talkers = sentences
    heard = degrade(clean, Degradation(kind, ratio), draw_at(0, kind, "a"), talkers)
    measured = 10 * np.log10(power(clean) / power(heard.astype(np.float64) - clean))
    assert measured == pytest.approx(ratio, abs=0.01)  # float32
    assert heard.shape == clean.shape
    assert heard.dtype == np.float32


def test_white_noise_has_the_same_power_in_every_octave_per_hertz():
    clean = tone(440, seconds=4)
    noise = degrade(clean, Degradation("noise", 0), draw_at(0, "noise", "a")) - clean
    _, density = scipy.signal.welch(noise, RATE, nperseg=512)
    assert density[1:-1].std() / density[1:-1].mean() < 0.15


def test_voices_in_babble_are_equally_loud_however_loud_they_were():
    talkers = [tone(500, level=0.5), tone(1500, level=0.005)]
    mixed = mix_babble(talkers, 2 * RATE, np.random.default_rng(0))
    spectrum = np.abs(np.fft.rfft(mixed))
    assert spectrum[1000] == pytest.approx(spectrum[3000], rel=0.01)
    assert spectrum[[1000, 3000]].min() > 100 * np.median(spectrum)


def test_babble_without_a_voice_is_refused():
    silent = [np.zeros(100, np.float32)]
    with pytest.raises(AudioError, match="None of 1 talkers is to be heard"):
        degrade(tone(300), Degradation("babble", 10), draw_at(0, "babble", "a"), silent)


# ITU-T G.711, tables 1 and 2: the first decision value of each segment, and how far its 16 are
# apart, of full scales 4096 and 8192.
SEGMENTS = {
    "A": [(0, 2), (32, 2), (64, 4), (128, 8), (256, 16), (512, 32), (1024, 64), (2048, 128)],
    "mu": [(-1, 2), (31, 4), (95, 8), (223, 16), (479, 32), (991, 64), (2015, 128), (4063, 256)],
}


@pytest.mark.parametrize(("law", "full"), [("A", 4096), ("mu", 8192)])
def test_g711_gives_the_middle_of_the_interval_that_a_sample_lies_in(law, full):
    rng = np.random.default_rng(0)
    loud, quiet = rng.uniform(-1, 1, 5_000), rng.normal(0, 0.002, 5_000)
    waveform = np.concatenate([loud, quiet, [1.0, -1.0, 1.5, 0.0]]).astype(np.float32)
    for sample, decoded in zip(waveform.tolist(), compand(waveform, law).tolist(), strict=True):
        magnitude = abs(sample) * full
        first, step = max(each for each in SEGMENTS[law] if each[0] <= magnitude)
        place = min((magnitude - first) // step, 15)
        assert abs(decoded) * full == first + (place + 0.5) * step
        assert np.signbit(decoded) == np.signbit(sample)


@pytest.mark.parametrize("law", ["A", "mu"])
def test_a_telephone_passes_speech_bands_and_nothing_above(law):
    low, high = tone(1_000), tone(5_500)
    heard = send_by_telephone(low, law)
    inside = slice(800, -800)  # the resamplers' ends
    error = power(heard[inside] - low[inside]) / power(low[inside])
    assert 10 * np.log10(error) < -33  # G.711's own: about 38 dB at this level
    # What is left is the step of A-law around zero.
    assert 10 * np.log10(power(send_by_telephone(high, law)[inside]) / power(high)) < -55
    assert len(send_by_telephone(low[:4001], law)) == 4001


def test_opus_has_about_the_rate_that_was_asked_for_and_keeps_time(sentences):
    waveform = np.concatenate(sentences)
    errors = []
    for kbits in KINDS["opus"].levels:
        rate = len(encode_opus(waveform, RATE, kbits)) * 8 / (len(waveform) / RATE) / 1000
        # Opus's rate is a mean over much speech; Ogg adds 1 to 2 kbit/s.
        assert 0.6 * kbits < rate < 1.2 * kbits + 2
        heard = send_by_opus(waveform, kbits)
        assert heard.shape == waveform.shape
        lags = np.arange(-40, 41)
        likeness = [np.dot(np.roll(heard, -lag), waveform) for lag in lags]
        assert abs(lags[np.argmax(likeness)]) <= 2  # samples
        errors.append(power(heard - waveform) / power(waveform))
    assert errors == sorted(errors)
    assert errors[-1] > 3 * errors[0]


@pytest.mark.parametrize("rt60", KINDS["reverberation"].levels)
def test_reverberation_falls_by_sixty_decibels_in_the_time_that_was_asked_for(rt60):
    measured = []
    for seed in range(5):
        response = room_response(rt60, np.random.default_rng(seed))
        left = 10 * np.log10(np.cumsum(response[::-1] ** 2)[::-1] / np.sum(response**2))
        # Schroeder 1965: the slope of what is left, here from -5 to -35 dB (T30).
        part = np.flatnonzero((left < -5) & (left > -35))
        slope = np.polyfit(part / RATE, left[part], 1)[0]
        measured.append(-60 / slope)
    assert np.mean(measured) == pytest.approx(rt60, rel=0.05)
    assert response[0] ** 2 == pytest.approx(np.sum(response[1:] ** 2))


def test_a_room_is_a_convolution_that_leaves_the_level(sentences):
    response = room_response(0.5, np.random.default_rng(0))
    heard = reverberate(sentences[0], response)
    expected = scipy.signal.fftconvolve(sentences[0].astype(np.float64), response)
    expected = expected[: len(heard)]
    expected *= np.sqrt(power(sentences[0]) / power(expected))
    np.testing.assert_allclose(heard, expected, atol=1e-6)


@pytest.mark.parametrize("level", KINDS["clipping"].levels)
def test_clipping_cuts_at_a_share_of_the_peak_and_touches_nothing_below(level, sentences):
    clean = sentences[0]
    heard = degrade(clean, Degradation("clipping", level), draw_at(0, "clipping", "a"))
    limit = level * np.abs(clean).max()
    np.testing.assert_allclose(heard, np.clip(clean, -limit, limit), atol=1e-7)
    assert np.mean(heard != clean) > 0


@pytest.mark.parametrize("level", KINDS["speed"].levels)
def test_speed_moves_pitch_and_length(level):
    heard = degrade(tone(400), Degradation("speed", level), draw_at(0, "speed", "a"))
    assert len(heard) == round(RATE / level)
    peak = np.abs(np.fft.rfft(heard)).argmax() * RATE / len(heard)
    assert peak == pytest.approx(400 * level, abs=2)


@pytest.mark.parametrize("degradation", list_degradations(), ids=lambda each: each.name)
def test_draws_depend_on_the_address_alone(degradation, sentences):
    clean, *talkers = sentences

    def heard(utterance, seed=0):
        rng = draw_at(seed, degradation.kind, utterance)
        return degrade(clean, degradation, rng, talkers)

    first = heard("a")
    others = [heard("b"), heard("a", seed=1)]
    np.testing.assert_array_equal(heard("a"), first)
    if degradation.kind in ("noise", "babble", "reverberation"):
        assert all(not np.array_equal(each, first) for each in others)
    else:
        assert all(np.array_equal(each, first) for each in others)


@pytest.mark.parametrize("kind", ["noise", "babble"])
def test_an_utterance_meets_the_same_noise_at_every_level(kind, sentences):
    clean, *talkers = sentences
    loud, faint = (
        degrade(clean, Degradation(kind, ratio), draw_at(0, kind, "a"), talkers) - clean
        for ratio in (0.0, 20.0)
    )
    assert np.corrcoef(loud, faint)[0, 1] > 0.9999


@pytest.mark.parametrize("degradation", list_degradations(), ids=lambda each: each.name)
@pytest.mark.parametrize("clean", [np.zeros(500, np.float32), np.full(1, 0.5, np.float32)])
def test_silence_and_single_samples_come_through(degradation, clean):
    talkers = [tone(300), tone(500)]
    heard = degrade(clean, degradation, draw_at(0, degradation.kind, "a"), talkers)
    assert np.isfinite(heard).all()
    assert len(heard) >= 1
    if not clean.any():
        assert np.abs(heard).max() < 1e-3  # A-law has no zero


def test_an_unknown_kind_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match=r"No degradation is called 'rain'. There are: noise"):
        list_degradations(["opus", "rain"])
