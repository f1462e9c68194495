import librosa
import numpy as np
import pytest

from fixtures.voices import noise, scaled, vowel
from koser.config import build_config
from koser.errors import CheckpointError, ConfigError
from koser.features.prosody.pitch import PitchOptions, detect_pitch, true_runs

OPTIONS = PitchOptions()


def glide(base):
    return lambda times: base * 2 ** (0.3 * np.sin(2 * np.pi * 1.5 * times))


@pytest.mark.parametrize("base", [80, 130, 210, 320, 450])
@pytest.mark.parametrize("snr_db", [60, 10])
def test_a_gliding_pitch_is_known(base, snr_db):
    clean = vowel(glide(base))
    rms = float(np.sqrt(np.mean(np.square(clean))))
    found = detect_pitch(clean + noise(1.0, level=rms * 10 ** (-snr_db / 20)), OPTIONS).hertz
    inner = slice(4, -4)
    expected = glide(base)(np.arange(len(found)) * 256 / 16_000)
    cents = 1200 * np.abs(np.log2(found[inner] / expected[inner]))
    # A quarter of a semitone at most, and a twentieth mostly: NaN would fail both.
    assert cents.max() < 25
    assert np.median(cents) < 5


def test_it_agrees_with_another_detector():
    voice = vowel(glide(150))
    expected, is_voiced, _ = librosa.pyin(
        voice, fmin=60, fmax=600, sr=16_000, frame_length=1024, hop_length=256
    )
    found = detect_pitch(voice, OPTIONS).hertz
    both = is_voiced[: len(found)] & ~np.isnan(found)
    assert both[4:-4].all()
    cents = 1200 * np.abs(np.log2(found / expected[: len(found)]))[4:-4]
    assert np.median(cents) < 15  # pyin's own steps are 10


def test_level_does_not_matter():
    voice = np.concatenate([vowel(glide(120)), noise(0.5, level=0.01)])
    expected = detect_pitch(voice, OPTIONS)
    for gain in (2.0**-10, 2.0**-4, 2.0):  # exact in floating point
        np.testing.assert_array_equal(detect_pitch(voice * gain, OPTIONS).hertz, expected.hertz)


@pytest.mark.parametrize(
    "clip",
    [
        np.zeros(16_000, np.float32), np.zeros(0, np.float32), np.full(1, 0.5, np.float32),
        np.full(8000, 0.2, np.float32), noise(2.0), noise(2.0, level=1e-4),
    ],
)  # fmt: skip
def test_nothing_is_voiced_without_a_voice(clip):
    pitch = detect_pitch(clip, OPTIONS)
    assert not pitch.is_voiced.any()
    assert pitch.segments == ()
    assert len(pitch.hertz) == max(1, len(clip) // 256)


def test_a_voiced_segment_needs_several_frames():
    burst = np.concatenate([np.zeros(8000), vowel(200, seconds=0.2), np.zeros(8000)])
    found = detect_pitch(burst.astype(np.float32), OPTIONS)
    assert len(found.segments) == 1
    length = found.segments[0].stop - found.segments[0].start
    assert 9 <= length <= 16  # 12.5 frames of sound
    longer = build_config(PitchOptions, {"min_frames": length + 1})
    assert not detect_pitch(burst.astype(np.float32), longer).is_voiced.any()


def test_silence_before_shifts_the_pitch_by_as_many_frames():
    voice = np.concatenate([np.zeros(2560), vowel(glide(180)), np.zeros(2560)]).astype(np.float32)
    plain = detect_pitch(voice, OPTIONS).hertz
    shifted = detect_pitch(np.concatenate([np.zeros(256 * 50, np.float32), voice]), OPTIONS).hertz
    np.testing.assert_allclose(shifted[50:], plain, rtol=1e-4)
    assert np.isnan(shifted[:50]).all()


def test_pitch_outside_the_range_is_none():
    high = scaled(np.sin(2 * np.pi * 900 * np.arange(16_000) / 16_000))
    assert not detect_pitch(high, OPTIONS).is_voiced.any()
    wider = detect_pitch(high, PitchOptions(f0_max=1000))
    np.testing.assert_allclose(wider.hertz[6:-6], 900, rtol=0.01)


def test_semitones_count_from_the_lowest_a():
    pitch = detect_pitch(vowel(110), OPTIONS)
    np.testing.assert_allclose(pitch.semitones[3:-3], 24, atol=0.1)  # two octaves


def test_another_detector_is_refused():
    pinned = OPTIONS.pinned()
    assert pinned.detector.startswith("swift-f0 ")
    assert pinned.pinned() == pinned
    other = PitchOptions(detector="swift-f0 0.9.9 0123456789ab")
    with pytest.raises(CheckpointError, match=r"trained on the pitch of swift-f0 0\.9\.9.*==0\.9"):
        other.pinned()


def test_an_empty_range_is_refused():
    with pytest.raises(ConfigError, match="an octave or more"):
        build_config(PitchOptions, {"f0_min": 300, "f0_max": 400})


def test_runs_cover_what_is_true():
    rng = np.random.default_rng(0)
    for flags in (rng.random(200) < 0.5, np.ones(3, bool), np.zeros(3, bool), np.zeros(0, bool)):
        again = np.zeros(len(flags), bool)
        for run in true_runs(flags):
            assert flags[run].all()
            again[run] = True
        np.testing.assert_array_equal(again, flags)
