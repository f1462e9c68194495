import pickle

import numpy as np
import pytest
import soundfile

from fixtures.voices import noise, vowel
from koser.audio.reading import Clip
from koser.audio.resampling import resample
from koser.features.extraction import extract
from koser.features.prosody.extractor import ProsodyExtractor, extract_functionals
from koser.features.prosody.functionals import FUNCTIONALS
from koser.features.prosody.pitch import PitchOptions
from koser.features.store import FeatureStore

NAMES = [each.name for each in FUNCTIONALS]
OPTIONS = PitchOptions()


def melody(times):
    return 140 * 2 ** (0.25 * np.sin(2 * np.pi * 1.3 * times))


def utterance(sampling_rate=16_000, seed=0):
    """Three syllables with pauses of breath."""
    rng = np.random.default_rng(seed)
    pieces = []
    for seconds, level in ((0.3, 0.5), (0.2, 1.0), (0.4, 0.7)):
        times = np.arange(round(seconds * sampling_rate)) / sampling_rate
        envelope = np.sin(np.pi * times / seconds) ** 0.5
        pieces.append(
            level * envelope * vowel(melody, seconds=seconds, sampling_rate=sampling_rate)
        )
        pieces.append(np.zeros(round(0.128 * sampling_rate)))
    speech = np.concatenate(pieces)
    hiss = resample(rng.standard_normal(32_000).astype(np.float32), 16_000, sampling_rate)
    return (speech + 0.002 * hiss[: len(speech)]).astype(np.float32)


class Earlier:
    """The same front-end before its definition changed; it found nothing but zeros."""

    def __init__(self, extractor):
        self._extractor, self.name = extractor, extractor.name

    def describe(self):
        known = self._extractor.describe()
        return known | {"definition": known["definition"] - 1}

    def __call__(self, waveform):
        return np.zeros((2, len(NAMES)), np.float32)


def functionals(waveform, options=OPTIONS):
    return dict(zip(NAMES, extract_functionals(waveform, options).tolist(), strict=True))


@pytest.mark.parametrize(
    "clip",
    [
        np.zeros(16_000, np.float32), np.zeros(0, np.float32), np.zeros(1, np.float32),
        np.full(1, 1.0, np.float32), vowel(200, seconds=0.02), noise(0.02), noise(1.0),
        np.full(8000, -0.3, np.float32), noise(1.0) * 1e-6,
        np.clip(20 * vowel(200), -1, 1), np.eye(1, 4000, 2000, dtype=np.float32)[0],
    ],
    ids=str,
)  # fmt: skip
def test_every_clip_has_finite_numbers_and_says_which_mean_something(clip):
    with np.errstate(all="raise"):
        values, is_defined = ProsodyExtractor(OPTIONS)(clip)
    assert values.dtype == is_defined.dtype == np.float32
    assert np.isfinite(values).all()
    assert set(is_defined.tolist()) <= {0.0, 1.0}
    assert not values[is_defined == 0].any()
    found = dict(zip(NAMES, values.tolist(), strict=True))
    known = dict(zip(NAMES, is_defined.tolist(), strict=True))
    assert known["no_voiced_frame"] == known["no_sound"] == 1
    assert known["f0_mean"] == 1 - found["no_voiced_frame"]
    assert known["level"] == 1 - found["no_sound"]


def test_20_ms_noise_and_silence_have_no_voiced_frame():
    for clip in (np.zeros(16_000), vowel(200, seconds=0.02), noise(1.0)):
        assert functionals(clip.astype(np.float32))["no_voiced_frame"] == 1
    assert functionals(utterance())["no_voiced_frame"] == 0


@pytest.mark.parametrize("gain", [2.0**-4, 2.0])
def test_a_gain_changes_loudness_and_level_alone(gain):
    plain, other = functionals(utterance()), functionals(utterance() * gain)
    for name, value in plain.items():
        expected = value
        if name == "level":
            expected += 20 * np.log10(gain)
        elif name.startswith("loudness_") and name not in ("loudness_cv", "loudness_peaks"):
            expected *= gain ** (2 / 3)
        # float32 below, in resampling for formants
        assert other[name] == pytest.approx(expected, rel=1e-3, abs=1e-4, nan_ok=True), name


def test_silence_around_changes_nothing_that_is_said_of_the_voice():
    clip = utterance()
    quiet = np.zeros(256 * 40, np.float32)
    plain, padded = functionals(clip), functionals(np.concatenate([quiet, clip, quiet]))
    about_voice = [
        name for name, each in zip(NAMES, FUNCTIONALS, strict=True)
        if ", voiced frames" in each.definition or name.startswith(("jitter", "shimmer"))
    ]  # fmt: skip
    assert len(about_voice) > 40
    for name in about_voice:
        # Frames are on the same grid; the detector hears other neighbours at both ends.
        assert padded[name] == pytest.approx(plain[name], rel=0.02, abs=0.05), name
    assert padded["voiced_share"] < plain["voiced_share"]
    assert padded["loudness_peaks"] * (len(clip) / 256 + 80) == pytest.approx(
        plain["loudness_peaks"] * (len(clip) / 256), rel=0.02
    )


def test_the_voice_that_was_made_is_described():
    found = functionals(utterance())
    assert found["voiced_segments"] * 80 * 0.016 == pytest.approx(3, abs=0.1)
    assert found["f1_mean"] == pytest.approx(500, rel=0.1)
    assert found["f2_mean"] == pytest.approx(1500, rel=0.1)
    assert found["f3_mean"] == pytest.approx(2500, rel=0.1)
    assert found["loudness_peaks"] * 80 * 0.016 == pytest.approx(3, abs=0.1)
    steady = functionals(vowel(110))
    assert steady["f0_mean"] == pytest.approx(24, abs=0.1)
    assert steady["f0_sd"] < 0.1
    assert steady["jitter_mean"] < 0.2
    assert steady["shimmer_mean"] < 0.1
    assert steady["hnr_mean"] > 30


@pytest.mark.parametrize("sampling_rate", [22_050, 44_100])
def test_the_recordings_sampling_rate_does_not_matter(sampling_rate):
    studio = utterance(48_000)
    plain = functionals(resample(studio, 48_000, 16_000))
    kept = resample(studio, 48_000, sampling_rate)
    other = functionals(resample(kept, sampling_rate, 16_000))
    for name, value in plain.items():
        assert other[name] == pytest.approx(value, rel=0.05, abs=0.05, nan_ok=True), name


def test_a_faster_clip_has_a_higher_voice():
    plain = ProsodyExtractor(OPTIONS)(utterance())[0]
    fast = ProsodyExtractor(OPTIONS, speed=1.1)(utterance())[0]
    difference = dict(zip(NAMES, (fast - plain).tolist(), strict=True))
    assert difference["f0_mean"] == pytest.approx(12 * np.log2(1.1), abs=0.15)


def test_one_clip_alone_is_one_clip_among_others(tmp_path):
    """Through the store, in two orders, with a pickled front-end as workers have it."""
    clips = []
    for seed in range(4):
        path = tmp_path / f"{seed}.wav"
        soundfile.write(path, utterance(seed=seed)[: 12_000 + 3000 * seed], 16_000, "FLOAT")
        clips.append(Clip(str(path)))
    extractor = pickle.loads(pickle.dumps(ProsodyExtractor(OPTIONS)))
    stored = []
    for name, order in (("a", clips), ("b", clips[::-1])):
        keys = extract(order, extractor, tmp_path / name)
        store = FeatureStore(tmp_path / name, extractor.describe())
        stored.append(
            {clip.path: store.read(bytes(key)) for clip, key in zip(order, keys, strict=True)}
        )
    for clip in clips:
        alone = extractor(soundfile.read(clip.path, dtype="float32")[0])
        for each in stored:
            np.testing.assert_array_equal(each[clip.path], alone)


def test_the_description_names_detector_speed_and_set():
    plain = ProsodyExtractor(OPTIONS).describe()
    assert plain["detector"] == OPTIONS.pinned().detector
    assert plain["functionals"] == NAMES
    assert plain != ProsodyExtractor(OPTIONS, speed=0.9).describe()
    assert plain != ProsodyExtractor(PitchOptions(f0_max=500)).describe()


def test_what_an_earlier_definition_stored_is_not_found_again(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, utterance(), 16_000, "FLOAT")
    extractor = ProsodyExtractor(OPTIONS)
    earlier = Earlier(extractor)
    keys = [extract([Clip(str(path))], each, tmp_path)[0] for each in (earlier, extractor)]
    stores = [FeatureStore(tmp_path, each.describe()) for each in (earlier, extractor)]
    assert stores[0].folder != stores[1].folder
    assert not stores[0].read(bytes(keys[0])).any()
    np.testing.assert_array_equal(stores[1].read(bytes(keys[1])), extractor(utterance()))
