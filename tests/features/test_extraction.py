import shutil

import numpy as np
import pytest
import soundfile

from koser.audio.reading import load
from koser.errors import AudioError
from koser.features import extraction
from koser.features.extraction import Clip, clip_key, extract
from koser.features.mfcc import MfccExtractor, MfccOptions
from koser.features.store import FeatureStore


@pytest.fixture
def extractor():
    return MfccExtractor(MfccOptions())


@pytest.fixture
def clips(tmp_path, write_wav):
    rng = np.random.default_rng(0)
    return [
        Clip(str(write_wav(tmp_path / "wav" / f"{i}.wav", seconds=s, pitch=100 + 20 * i)))
        for i, s in enumerate(rng.uniform(0.02, 0.4, size=12))
    ]


def read_all(store_root, extractor, keys):
    store = FeatureStore(store_root, extractor.describe())
    return [store.read(bytes(key)) for key in keys]


def test_the_store_holds_what_the_extractor_makes_of_each_file(tmp_path, extractor, clips):
    keys = extract(clips, extractor, tmp_path / "store")
    for clip, features in zip(clips, read_all(tmp_path / "store", extractor, keys), strict=True):
        np.testing.assert_array_equal(features, extractor(load(clip.path)))


def test_features_depend_neither_on_order_nor_on_workers(tmp_path, extractor, clips, monkeypatch):
    monkeypatch.setattr(extraction, "_WORTH_WORKERS", 1)
    plain = extract(clips, extractor, tmp_path / "a")
    other = extract(clips[::-1], extractor, tmp_path / "b", n_workers=2)[::-1]
    assert plain.tolist() == other.tolist()
    for one, two in zip(
        read_all(tmp_path / "a", extractor, plain),
        read_all(tmp_path / "b", extractor, other),
        strict=True,
    ):
        np.testing.assert_array_equal(one, two)


def test_what_the_store_has_is_not_extracted_again(tmp_path, extractor, clips, monkeypatch):
    keys = extract(clips[:7], extractor, tmp_path / "store")
    made = []
    monkeypatch.setattr(extraction, "load", lambda path, **_: made.append(path) or load(path))
    again = extract(clips, extractor, tmp_path / "store")
    assert again[:7].tolist() == keys.tolist()
    assert made == [clip.path for clip in clips[7:]]


def test_a_key_is_of_the_content_and_the_part_not_of_the_name(tmp_path, clips):
    copy = tmp_path / "copy.wav"
    shutil.copy(clips[0].path, copy)
    assert clip_key(Clip(str(copy))) == clip_key(clips[0])
    assert clip_key(clips[1]) != clip_key(clips[0])
    parts = [Clip(str(copy), 0.0, 0.01), Clip(str(copy), 0.0, 0.02), Clip(str(copy))]
    assert len({clip_key(part) for part in parts}) == 3
    before = clip_key(Clip(str(copy)))
    waveform, rate = soundfile.read(copy)
    soundfile.write(copy, waveform * 0.5, rate)
    assert clip_key(Clip(str(copy))) != before


def test_a_part_of_a_file_is_extracted_alone(tmp_path, extractor, write_wav):
    path = str(write_wav(tmp_path / "long.wav", seconds=1.0))
    keys = extract([Clip(path, 0.25, 0.75)], extractor, tmp_path / "store")
    (features,) = read_all(tmp_path / "store", extractor, keys)
    np.testing.assert_array_equal(features, extractor(load(path)[4000:12_000]))


def test_unreadable_files_are_counted_and_the_others_are_kept(tmp_path, extractor, clips):
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no sound")
    mixed = [clips[0], Clip(str(bad)), clips[1], Clip(str(tmp_path / "gone.wav"))]
    with pytest.raises(AudioError, match=r"2 of 4 audio files.*bad\.wav.*gone\.wav"):
        extract(mixed, extractor, tmp_path / "store")
    store = FeatureStore(tmp_path / "store", extractor.describe())
    assert [clip_key(clip) in store for clip in clips[:3]] == [True, True, False]


def test_progress_counts_every_clip(tmp_path, extractor, clips):
    told = []
    extract(clips, extractor, tmp_path / "store", progress=lambda *counts: told.append(counts))
    assert told == [(done, 12) for done in range(1, 13)]
