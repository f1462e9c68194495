"""Bytes of a store arrive whole or not at all."""

import hashlib
import os
from pathlib import Path

import pytest

from fixtures.stores import BUSY, CUT, FAULTS, RESET
from koser.errors import MissingObjectError, ObjectError, StorageError
from koser.storage import objects
from koser.storage.objects import fetch, is_folder, list_objects, local_file, look_up, read_range

SIZES = (0, 1, 1_000, 4_096, 4_097, 10_000)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(objects, "_CHUNK", 4_096)


def content_of(size, seed=0):
    return hashlib.shake_128(bytes([seed])).digest(size)


@pytest.mark.parametrize("size", SIZES)
def test_an_object_is_copied_byte_for_byte_and_hashed(bucket, small_chunks, size):
    url = bucket.put("sub/한글 이름#1.bin", content_of(size))
    spool = fetch(url)
    assert Path(spool.path).read_bytes() == content_of(size)
    assert Path(spool.path).read_bytes() == content_of(size)  # and again
    assert spool.digest.digest() == hashlib.sha256(content_of(size)).digest()


@pytest.mark.parametrize("kind", FAULTS)
def test_with_half_of_the_requests_failing_everything_still_comes_whole(
    make_bucket, small_chunks, kind
):
    seed = FAULTS.index(kind)
    bucket = make_bucket(share=0.5, seed=seed, kinds=[kind])
    urls = {bucket.put(f"{size}", content_of(size, seed)): size for size in SIZES}
    for url, size in urls.items():
        with local_file(url) as file:
            assert file.read_bytes() == content_of(size, seed)
    assert bucket.network.faults() == {kind}


def test_a_body_that_is_always_cut_off_is_refused_and_never_handed_on(make_bucket):
    bucket = make_bucket(always={"poisoned": CUT})
    url = bucket.put("poisoned", content_of(10_000))
    with pytest.raises(ObjectError, match=f"'{url}' could not be read in 8 attempts"):
        fetch(url)
    assert bucket.network.count("GET") == 8


class Silent:
    """A driver that takes a body that ended early for a whole one, as some do."""

    def __init__(self, n_missing):
        self.n_missing = n_missing

    def info(self, path):
        return {"type": "file", "size": 100}

    def cat_file(self, path, start, end):
        return bytes(min(end, 100) - start - self.n_missing)


@pytest.mark.parametrize("n_missing", [1, 50, -1])
def test_no_driver_is_trusted_to_see_that_bytes_are_missing(monkeypatch, n_missing):
    monkeypatch.setattr("koser.storage.retrying.Retries.wait", lambda self, n_failed: 0.0)
    monkeypatch.setattr(objects, "filesystem", lambda url: (Silent(n_missing), url))
    with pytest.raises(ObjectError, match=f"{100 - n_missing} bytes came where 100 should"):
        fetch("silent://a/b")


def test_an_object_that_is_replaced_while_it_is_read_is_refused(bucket, small_chunks, monkeypatch):
    url = bucket.put("a", content_of(10_000, 1))
    read = objects.read_range

    def read_and_replace(info, start, end):
        found = read(info, start, end)
        if start == 0:
            bucket.put("a", content_of(10_000, 2))
        return found

    monkeypatch.setattr(objects, "read_range", read_and_replace)
    with pytest.raises(ObjectError, match="was replaced while it was read"):
        fetch(url)


def test_ranges_are_read_as_asked_for(bucket):
    info = look_up(bucket.put("a", content_of(1_000)))
    assert read_range(info, 10, 20) == content_of(1_000)[10:20]
    assert read_range(info, 990, 5_000) == content_of(1_000)[990:]
    assert sum(each.n_bytes for each in bucket.network.requests if each.method == "GET") == 20


def test_a_copy_has_no_name_that_a_killed_process_could_leave_behind(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    spool = fetch(bucket.put("a", b"content"))
    assert Path(spool.path).read_bytes() == b"content"
    assert os.listdir(tmp_path) == []
    descriptor = int(spool.path.rpartition("/")[2])
    del spool
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_full_disk_is_told_in_one_line(bucket, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    url = bucket.put("a", b"content")
    monkeypatch.setattr(objects.os, "write", full)
    with pytest.raises(StorageError, match=r"No space left on device\. Make room, or set TMPDIR"):
        fetch(url)


def test_what_is_below_a_prefix_is_listed_as_urls(bucket):
    for key in ("p/b.wav", "p/a/x.wav", "p", "pq/z.wav", "p/marker/"):
        bucket.put(key, b"")
    expected = sorted(bucket.url(key) for key in ("p/b.wav", "p/a/x.wav", "p/marker"))
    for root in (bucket.url("p"), bucket.url("p/")):
        assert sorted(url.rstrip("/") for url in list_objects(root)) == expected
    assert is_folder(bucket.url("p/a"))
    assert not is_folder(bucket.url("p/b.wav"))
    assert not is_folder(bucket.url("nothing"))


@pytest.mark.parametrize("kind", [BUSY, RESET])
def test_a_listing_of_several_pages_survives_faults(make_bucket, kind):
    bucket = make_bucket(share=0.5, kinds=[kind], seed=1, page=3)
    for number in range(30):
        bucket.put(f"many/{number:04d}.wav", b"")
    found = list_objects(bucket.url("many"))
    assert found == [bucket.url(f"many/{number:04d}.wav") for number in range(30)]
    assert bucket.network.count("GET") >= 10 + 5  # pages, and those that failed


def test_memory_is_a_store_like_any_other():
    from koser.storage.writing import send

    send(Path(__file__), "memory://tests/objects/a.py")
    with local_file("memory://tests/objects/a.py") as file:
        assert file.read_bytes() == Path(__file__).read_bytes()
    assert list_objects("memory://tests/objects") == ["memory://tests/objects/a.py"]
    with pytest.raises(MissingObjectError, match=r"No object at 'memory://tests/objects/b\.py'"):
        look_up("memory://tests/objects/b.py")
