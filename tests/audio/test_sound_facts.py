import numpy as np
import pytest
import soundfile

from fixtures.speech import SAMPLING_RATE, invent_speech
from koser.audio.reading import load
from koser.audio.resampling import resample
from koser.audio.sound_facts import SoundFacts, measure


def tone(amplitude=0.5, *, seconds=1.0, pitch=440.0):
    times = np.arange(round(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    return (amplitude * np.sin(2 * np.pi * pitch * times)).astype(np.float32)


@pytest.mark.parametrize("amplitude", [1.0, 0.1, 0.001])
def test_the_level_of_a_sine_is_3_db_below_its_amplitude(amplitude):
    expected = 20 * np.log10(amplitude / np.sqrt(2))
    assert measure(tone(amplitude), SAMPLING_RATE).level == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("gap", [0.0, 0.25, 0.8])
def test_leading_silence_ends_where_the_sound_begins(gap):
    rng = np.random.default_rng(0)
    hiss = (1e-4 * rng.normal(size=round(gap * SAMPLING_RATE))).astype(np.float32)
    facts = measure(np.concatenate([hiss, tone(seconds=0.5)]), SAMPLING_RATE)
    assert facts.leading_silence == pytest.approx(gap, abs=0.0101)


@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_bandwidth_tells_a_telephone_from_a_studio(rate):
    noise = np.random.default_rng(0).normal(size=rate * 2).astype(np.float32) * 0.1
    facts = measure(resample(noise, rate, 44_100), 44_100)
    assert facts.bandwidth == pytest.approx(rate / 2, rel=0.08)


def test_the_digest_is_of_the_samples_and_not_of_the_file(tmp_path):
    samples = (32_767 * tone()).astype(np.int16)  # integers: writers round floats differently
    for suffix in ("wav", "flac"):
        soundfile.write(tmp_path / f"a.{suffix}", samples, SAMPLING_RATE, "PCM_16")
    wav, flac = (
        measure(load(tmp_path / f"a.{suffix}"), SAMPLING_RATE) for suffix in ("wav", "flac")
    )
    assert (tmp_path / "a.wav").read_bytes() != (tmp_path / "a.flac").read_bytes()
    assert wav.digest == flac.digest
    changed = load(tmp_path / "a.wav")
    changed[7] += 1 / 32_768
    assert measure(changed, SAMPLING_RATE).digest != wav.digest


def test_facts_are_the_same_after_they_were_kept():
    facts = measure(invent_speech(0), SAMPLING_RATE)
    kept = SoundFacts.from_words(facts.to_words())
    assert kept.digest == facts.digest
    assert (kept.level, kept.bandwidth, kept.leading_silence) == pytest.approx(
        (facts.level, facts.bandwidth, facts.leading_silence), rel=1e-6
    )
    assert np.array_equal(kept.fingerprint, facts.fingerprint)


@pytest.mark.parametrize("n_samples", [1, 100, 2_000])
def test_silent_and_very_short_clips_have_finite_facts(n_samples):
    facts = measure(np.zeros(n_samples, np.float32), SAMPLING_RATE)
    assert facts.level == pytest.approx(-100)
    assert facts.bandwidth == 0
    assert facts.leading_silence <= n_samples / SAMPLING_RATE
