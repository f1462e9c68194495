"""Objects come ahead of use, once each, and are what local files are."""

import threading

import numpy as np
import pytest

from koser.audio.reading import Clip, load_clip
from koser.data.corpora.probing import probe_all
from koser.engines.local import SERIAL, LocalEngine
from koser.errors import AudioError
from koser.features import extraction
from koser.features.arrivals import N_AHEAD, clip_key, iter_arrivals
from koser.features.extraction import extract
from koser.features.mfcc import MfccExtractor, MfccOptions
from koser.features.sound_pass import listen
from koser.features.store import FeatureStore


@pytest.fixture
def files(tmp_path, write_wav):
    return [
        write_wav(tmp_path / f"{number}.wav", seconds=0.1 + 0.02 * number, pitch=200 + number)
        for number in range(6)
    ]


@pytest.fixture
def put(files):
    """Files of a bucket, as clips: local ones, and the same in a store."""

    def put_into(bucket):
        urls = [bucket.put(f"wav/{file.name}", file.read_bytes()) for file in files]
        return [Clip(str(file)) for file in files], [Clip(url) for url in urls]

    return put_into


def test_one_download_serves_hash_and_sound(bucket, put):
    local, remote = put(bucket)
    for here, arrival in zip(local, iter_arrivals(remote), strict=True):
        assert arrival.key() == clip_key(here)
        np.testing.assert_array_equal(arrival.load(), load_clip(here))
        assert arrival.probe().n_samples == len(load_clip(here))
    assert bucket.network.count("GET") == len(remote)
    assert bucket.network.count("HEAD") == len(remote)


def test_parts_of_one_recording_share_its_download(bucket, put):
    local, remote = put(bucket)
    parts = [(0.0, 0.05, 0), (0.02, 0.1, None), (None, None, 0)]
    here = [Clip(local[0].path, *part) for part in parts] + [local[1]]
    there = [Clip(remote[0].path, *part) for part in parts] + [remote[1]]
    assert [arrival.key() for arrival in iter_arrivals(there)] == [clip_key(clip) for clip in here]
    assert len({clip_key(clip) for clip in here}) == 4
    assert bucket.network.count("GET") == 2


def test_objects_are_fetched_side_by_side_and_not_all_at_once(monkeypatch):
    """Each waits until as many are on their way as may be: one by one, none would ever come."""
    together = threading.Barrier(N_AHEAD, timeout=20)
    begun = []

    def fetch(url):
        begun.append(url)
        if len(begun) <= N_AHEAD:
            together.wait()
        raise AudioError(url)

    monkeypatch.setattr("koser.features.arrivals.fetch_audio", fetch)
    clips = (Clip(f"s3://b/{number}.wav") for number in range(10 * N_AHEAD))
    arrivals = iter_arrivals(clips)
    with pytest.raises(AudioError, match=r"^s3://b/0\.wav$"):
        next(arrivals).load()
    assert N_AHEAD <= len(begun) <= 2 * N_AHEAD
    arrivals.close()


@pytest.mark.parametrize("n_workers", [1, 2])
def test_extraction_through_faults_is_the_local_one(
    make_bucket, put, tmp_path, monkeypatch, n_workers
):
    monkeypatch.setattr(extraction, "_WORTH_WORKERS", 1)
    bucket = make_bucket(share=0.4, seed=n_workers)
    local, remote = put(bucket)
    extractor = MfccExtractor(MfccOptions())
    keys = {}
    for name, clips in (("here", local), ("there", remote)):
        keys[name] = extract(clips, extractor, tmp_path / name, engine=LocalEngine(n_workers))
    assert keys["here"].tolist() == keys["there"].tolist()
    assert bucket.network.faults()
    stores = [FeatureStore(tmp_path / name, extractor.describe()) for name in keys]
    for key in keys["here"]:
        one, other = (store.read(bytes(key)) for store in stores)
        np.testing.assert_array_equal(one, other)


def test_what_is_in_the_store_from_disk_is_not_made_again_from_a_bucket(bucket, put, tmp_path):
    local, remote = put(bucket)
    assert listen(local, tmp_path / "store").n_new == len(local)
    heard = listen(remote, tmp_path / "store")
    assert (heard.n_new, heard.failures) == (0, {})
    assert bucket.network.count("GET") == len(remote)


def test_headers_come_in_order_and_what_is_missing_is_told_in_its_place(bucket, put):
    local, remote = put(bucket)
    urls = [remote[0].path, bucket.url("none.wav"), remote[1].path]
    first, none, second = probe_all(urls, SERIAL)
    assert (first.path, first.n_samples) == (urls[0], len(load_clip(local[0])))
    assert (second.path, second.n_samples) == (urls[2], len(load_clip(local[1])))
    assert isinstance(none, AudioError)
    here, there = probe_all([local[0].path, remote[0].path], SERIAL)
    assert here.n_samples == there.n_samples
