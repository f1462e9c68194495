"""An object comes into being whole, or what should be there is kept."""

import hashlib
import os
from pathlib import Path

import pytest

from fixtures.stores import BUSY, RESET
from koser.errors import ObjectError, StorageError
from koser.storage import drivers
from koser.storage.writing import writing

MANY = hashlib.shake_128(b"x").digest(11 * 2**20)  # sent in parts


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of the least size that S3 takes, so that a few MiB are several."""
    monkeypatch.setitem(drivers._PUT_OPTIONS, "s3", {"chunksize": 5 * 2**20})


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Where temporary files go."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_an_object_is_there_when_the_block_is_done_and_not_before(bucket, scratch):
    url = bucket.put("out/한글.csv", b"old")
    with writing(url) as file:
        file.write_bytes(b"new")
        assert bucket.get("out/한글.csv") == b"old"
        assert file.suffix == ".csv"
    assert bucket.get("out/한글.csv") == b"new"
    assert os.listdir(scratch) == []


def test_a_block_that_fails_leaves_what_was_there(bucket, scratch):
    url = bucket.put("a", b"old")
    with pytest.raises(FileNotFoundError), writing(url) as file:
        file.write_bytes(Path("none").read_bytes())
    assert bucket.get("a") == b"old"
    assert os.listdir(scratch) == []


@pytest.mark.parametrize("seed", range(3))
def test_what_is_sent_in_parts_survives_faults(make_bucket, small_parts, scratch, seed):
    bucket = make_bucket(share=0.3, seed=seed, kinds=[BUSY, RESET])
    with writing(bucket.url("large.bin")) as file:
        file.write_bytes(MANY)
    assert bucket.get("large.bin") == MANY
    assert bucket.network.count("POST") >= 2  # started and completed in parts
    assert bucket.network.faults()


def test_what_cannot_be_sent_is_kept_and_no_part_of_it_stays(make_bucket, small_parts, scratch):
    bucket = make_bucket(always={"partNumber=2": BUSY})
    with (
        pytest.raises(StorageError, match=r"What should be there is kept in '(.+)'") as caught,
        writing(bucket.url("large.bin")) as file,
    ):
        file.write_bytes(MANY)
    kept = Path(str(caught.value).split("kept in '")[1].split("'")[0])
    assert kept.read_bytes() == MANY
    assert bucket.keys() == []
    assert bucket.n_unfinished_uploads() == 0


def test_a_target_that_cannot_be_is_refused_before_the_work(bucket):
    bucket.put("folder/a", b"")
    for url in (bucket.url("folder"), bucket.url("new/")):
        with pytest.raises(ObjectError, match="is a folder"), writing(url):
            pytest.fail("the work has begun")
    with (
        pytest.raises(StorageError, match="there is no such bucket"),
        writing("s3://no-such-bucket-of-koser-to-write-to/a"),
    ):
        pytest.fail("the work has begun")


def test_a_local_file_takes_the_way_it_always_took(tmp_path):
    with writing(tmp_path / "a") as file:
        file.write_bytes(b"a")
        assert not (tmp_path / "a").exists()
    assert os.listdir(tmp_path) == ["a"]
