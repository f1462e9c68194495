import itertools
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile

from koser.audio.reading import Clip, load, load_clip
from koser.engines.local import LocalEngine
from koser.errors import AudioError
from koser.features import arrivals, extraction, store
from koser.features.arrivals import clip_key
from koser.features.extraction import extract, extract_in_batches
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
    other = extract(clips[::-1], extractor, tmp_path / "b", engine=LocalEngine(2))[::-1]
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
    monkeypatch.setattr(
        arrivals, "load_clip", lambda clip, **how: made.append(clip.path) or load_clip(clip, **how)
    )
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
    channels = [Clip(str(copy), channel=channel) for channel in (None, 0, 1)]
    assert len({clip_key(clip) for clip in channels}) == 3
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


# Extraction in batches.


class Moments:
    """Mean and length of each waveform, and which lengths came together."""

    def __init__(self, *, is_on_gpu=False, batch_seconds=0.5, fails_at=None):
        self.dtype = "float64"
        self.batch_seconds = batch_seconds
        self.is_on_gpu = is_on_gpu
        self.fails_at = fails_at
        self.batches = []

    def describe(self):
        return {"extractor": "moments"}

    def extract(self, waveforms):
        if len(self.batches) == self.fails_at:
            raise RuntimeError("interrupted")
        self.batches.append([len(waveform) for waveform in waveforms])
        return [np.array([waveform.mean(), len(waveform)]) for waveform in waveforms]


def durations_of(clips):
    return np.array([soundfile.info(clip.path).duration for clip in clips])


def read_moments(store_root, keys):
    store = FeatureStore(store_root, Moments().describe(), dtype="float64")
    return [store.read(bytes(key)) for key in keys]


@pytest.fixture
def moments(clips):
    waveforms = [load(clip.path) for clip in clips]
    return [np.array([waveform.mean(), len(waveform)]) for waveform in waveforms]


@pytest.mark.parametrize("is_on_gpu", [False, True], ids=["cpu", "gpu"])
@pytest.mark.parametrize("n_workers", [1, 2])
def test_features_of_batches_do_not_depend_on_workers_or_threads(
    tmp_path, clips, moments, monkeypatch, is_on_gpu, n_workers
):
    monkeypatch.setattr(extraction, "_SECONDS_WORTH_WORKERS", 0.0)
    extractor = Moments(is_on_gpu=is_on_gpu)
    keys = extract_in_batches(
        clips, durations_of(clips), extractor, tmp_path / "store", engine=LocalEngine(n_workers)
    )
    # Workers are processes with extractors of their own, but not where there is one GPU.
    assert bool(extractor.batches) == (is_on_gpu or n_workers == 1)
    assert keys.tolist() == [clip_key(clip).rstrip(b"\0") for clip in clips]
    for features, expected in zip(read_moments(tmp_path / "store", keys), moments, strict=True):
        np.testing.assert_array_equal(features, expected)


def test_few_seconds_of_sound_are_not_worth_starting_processes(tmp_path, clips):
    extractor = Moments()
    extract_in_batches(
        clips, durations_of(clips), extractor, tmp_path / "store", engine=LocalEngine(2)
    )
    assert extractor.batches


def test_batches_hold_clips_of_similar_length_the_longest_first(tmp_path, clips):
    extractor = Moments()
    extract_in_batches(clips, durations_of(clips), extractor, tmp_path / "store")
    assert 1 < len(extractor.batches) < len(clips)
    for batch in extractor.batches:
        assert len(batch) * max(batch) <= 0.5 * 16_000
    for batch, following in zip(extractor.batches, extractor.batches[1:], strict=False):
        assert min(batch) >= max(following)


@pytest.mark.parametrize("is_on_gpu", [False, True], ids=["cpu", "gpu"])
def test_after_an_interruption_nothing_is_computed_twice(tmp_path, clips, moments, is_on_gpu):
    broken = Moments(fails_at=2, is_on_gpu=is_on_gpu)
    with pytest.raises(RuntimeError, match="interrupted"):
        extract_in_batches(clips, durations_of(clips), broken, tmp_path / "store")
    again = Moments(is_on_gpu=is_on_gpu)
    keys = extract_in_batches(clips, durations_of(clips), again, tmp_path / "store")
    computed = itertools.chain(*broken.batches, *again.batches)
    assert sorted(computed) == sorted(int(expected[1]) for expected in moments)
    for features, expected in zip(read_moments(tmp_path / "store", keys), moments, strict=True):
        np.testing.assert_array_equal(features, expected)
    nothing = Moments(fails_at=0)
    assert extract_in_batches(clips, durations_of(clips), nothing, tmp_path / "store").tolist() == (
        keys.tolist()
    )


def test_a_kill_leaves_whole_batches_so_none_is_computed_in_other_company(
    tmp_path, clips, monkeypatch
):
    # A large model's last digits depend on how long the batch is padded.
    monkeypatch.setattr(store, "_FLUSH_BYTES", 1)
    undisturbed, left = Moments(), []

    def kill(n_done, n_clips):
        left.append(shutil.copytree(tmp_path / "store", tmp_path / f"killed-{n_done}"))

    extract_in_batches(clips, durations_of(clips), undisturbed, tmp_path / "store", progress=kill)
    assert max(len(batch) for batch in undisturbed.batches) > 1
    for folder in left:
        again = Moments()
        extract_in_batches(clips, durations_of(clips), again, folder)
        assert again.batches == undisturbed.batches[len(undisturbed.batches) - len(again.batches) :]


def test_who_waited_for_another_process_makes_nothing_that_it_has_made(tmp_path, clips):
    first, second = Moments(), Moments()
    begun, has_waiter = threading.Event(), threading.Event()

    def begin(n_done, n_clips):
        begun.set()
        has_waiter.wait(timeout=10)

    with ThreadPoolExecutor(2) as pool:
        durations = durations_of(clips)
        one = pool.submit(
            extract_in_batches, clips, durations, first, tmp_path / "store", progress=begin
        )
        assert begun.wait(timeout=10)
        other = pool.submit(extract_in_batches, clips, durations, second, tmp_path / "store")
        time.sleep(0.2)  # it has found the store empty, and waits for the lock
        has_waiter.set()
        assert other.result().tolist() == one.result().tolist()
    assert first.batches
    assert second.batches == []


@pytest.mark.parametrize("is_on_gpu", [False, True], ids=["cpu", "gpu"])
def test_a_batch_with_unreadable_files_keeps_the_others(tmp_path, clips, is_on_gpu):
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no sound")
    mixed = [clips[0], Clip(str(bad)), clips[1], Clip(str(tmp_path / "gone.wav")), clips[2]]
    extractor = Moments(batch_seconds=100.0, is_on_gpu=is_on_gpu)
    with pytest.raises(AudioError, match=r"2 of 5 audio files.*(bad\.wav|gone\.wav)"):
        extract_in_batches(mixed, np.full(5, 0.3), extractor, tmp_path / "store")
    assert len(extractor.batches) == 1
    keys = [clip_key(clip) for clip in clips[:3]]
    lengths = [int(features[1]) for features in read_moments(tmp_path / "store", keys)]
    assert lengths == [len(load(clip.path)) for clip in clips[:3]]


def test_wrong_durations_change_only_what_is_batched_with_what(tmp_path, clips, moments):
    wrong = durations_of(clips)[::-1]
    keys = extract_in_batches(clips, wrong, Moments(), tmp_path / "store")
    for features, expected in zip(read_moments(tmp_path / "store", keys), moments, strict=True):
        np.testing.assert_array_equal(features, expected)


def test_a_clip_that_is_listed_twice_has_one_key(tmp_path, clips):
    twice = [*clips[:3], *clips[:3]]
    keys = extract_in_batches(twice, durations_of(twice), Moments(), tmp_path / "store")
    assert keys[:3].tolist() == keys[3:].tolist()
    assert len(FeatureStore(tmp_path / "store", Moments().describe(), dtype="float64")) == 3


def test_progress_of_batches_counts_every_clip(tmp_path, clips):
    told = []
    extract_in_batches(
        clips,
        durations_of(clips),
        Moments(),
        tmp_path / "store",
        progress=lambda *counts: told.append(counts),
    )
    assert told == [(done, 12) for done in range(1, 13)]


def test_no_clips_have_no_keys(tmp_path):
    assert extract_in_batches([], np.zeros(0), Moments(), tmp_path / "store").shape == (0,)
