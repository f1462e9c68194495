import json
import sqlite3
import threading
from dataclasses import replace

import pytest

from koser.errors import StoreError
from koser.features.text.cache import TranscriptCache
from koser.features.text.guards import Status, Transcript

GREETING = chr(0xC548) + chr(0xB155)
GOOD = Transcript(GREETING, Status.ok, -0.25, 0.01, "short")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "transcripts.sqlite"


def key(number):
    return number.to_bytes(16, "big")


def test_what_was_added_is_found_by_any_later_process(path):
    looped = Transcript("la la", Status.repetition, -1.5, 0.2, "full")
    TranscriptCache(path, {"model": 1}).add({key(1): GOOD, key(2): looped})
    found = TranscriptCache(path, {"model": 1}).find([key(2), key(1), key(3)])
    assert found == {key(1): GOOD, key(2): looped}


def test_another_model_or_other_decoding_finds_nothing(path):
    TranscriptCache(path, {"model": 1, "beam_size": 5}).add({key(1): GOOD})
    for other in ({"model": 2, "beam_size": 5}, {"model": 1, "beam_size": 1}, {"model": 1}):
        assert TranscriptCache(path, other).find([key(1)]) == {}


def test_keys_with_zeros_at_either_end_are_told_apart(path):
    keys = [key(1), (1).to_bytes(16, "little"), bytes(16), b"\0" * 15 + b"\1\0"[:1]]
    cache = TranscriptCache(path, {})
    cache.add({each: replace(GOOD, text=f"{place}") for place, each in enumerate(keys[:3])})
    assert [cache.find([each])[each].text for each in keys[:3]] == ["0", "1", "2"]


def test_many_keys_are_found_at_once(path):
    cache = TranscriptCache(path, {})
    cache.add({key(number): replace(GOOD, text=str(number)) for number in range(5000)})
    found = cache.find([key(number) for number in range(6000)])
    assert len(found) == 5000
    assert all(found[key(number)].text == str(number) for number in range(5000))


def test_a_batch_that_cannot_be_written_whole_is_not_written_at_all(path):
    cache = TranscriptCache(path, {})
    cache.add({key(1): GOOD})
    with pytest.raises(StoreError, match="cannot be used"):
        cache.add({key(2): GOOD, key(3): replace(GOOD, text=None)})
    assert cache.find([key(1), key(2), key(3)]) == {key(1): GOOD}
    cache.add({key(2): GOOD})  # and the cache can still be used
    assert len(cache.find([key(1), key(2)])) == 2


def test_failures_are_counted_until_they_succeed_and_are_no_transcripts(path):
    cache = TranscriptCache(path, {"model": 1})
    cache.add_failure("a.wav", "it is damaged")
    cache.add_failure("a.wav", "it is still damaged")
    cache.add_failure("b.wav", "it is gone")
    assert cache.failures() == {"a.wav": ("it is still damaged", 2), "b.wav": ("it is gone", 1)}
    assert TranscriptCache(path, {"model": 2}).failures() == {}
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM transcript").fetchone() == (0,)
    cache.add({key(1): GOOD}, ["a.wav"])
    assert cache.failures() == {"b.wav": ("it is gone", 1)}


def test_several_writers_at_once_lose_nothing(path):
    TranscriptCache(path, {}).close()

    def write(first):
        cache = TranscriptCache(path, {})
        for number in range(first, first + 40):
            cache.add({key(number): replace(GOOD, text=str(number))})

    threads = [threading.Thread(target=write, args=(100 * each,)) for each in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted = [key(100 * each + number) for each in range(4) for number in range(40)]
    assert len(TranscriptCache(path, {}).find(wanted)) == 160


def test_the_file_says_what_its_transcripts_depend_on(path):
    TranscriptCache(path, {"model": "small", "language": "ko"}).add({key(1): GOOD})
    with sqlite3.connect(path) as connection:
        ((description, text),) = connection.execute(
            "SELECT description, text FROM transcript JOIN transcriber ON transcriber = id"
        )
    assert json.loads(description) == {"model": "small", "language": "ko"}
    assert text == GREETING


@pytest.mark.parametrize("content", [b"no database at all, but long enough to be read" * 30, None])
def test_a_file_that_is_no_cache_is_refused_in_one_line(path, content):
    path.parent.mkdir()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(StoreError, match=r"transcripts\.sqlite' cannot be used") as caught:
        TranscriptCache(path, {})
    assert "\n" not in str(caught.value)


def test_the_cache_of_a_later_koser_is_refused(path):
    TranscriptCache(path, {}).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 7")
    with pytest.raises(StoreError, match=r"later version of koser \(schema 7\)\. Update koser"):
        TranscriptCache(path, {})


def test_the_cache_of_koser_0_1_is_read_and_what_is_added_gets_checksums(path):
    TranscriptCache(path, {"model": 1}).add({key(1): GOOD})
    with sqlite3.connect(path) as connection:  # as it was before there were any
        connection.execute("ALTER TABLE transcript DROP COLUMN crc")
        connection.execute("PRAGMA user_version = 1")
    cache = TranscriptCache(path, {"model": 1})
    assert cache.find([key(1)]) == {key(1): GOOD}
    cache.add({key(2): GOOD})
    with sqlite3.connect(path) as connection:
        found = connection.execute("SELECT crc IS NULL FROM transcript ORDER BY clip").fetchall()
    assert found == [(1,), (0,)]


def test_a_changed_transcript_is_not_believed(path, caplog):
    cache = TranscriptCache(path, {})
    cache.add({key(1): GOOD, key(2): GOOD})
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE transcript SET avg_logprob = -0.26 WHERE clip = ?", [key(2)])
    assert cache.find([key(1), key(2)]) == {key(1): GOOD}
    assert "1 transcripts" in caplog.text


def test_a_full_disk_is_told_as_such_and_the_cache_goes_on_after_it(path):
    cache = TranscriptCache(path, {})
    cache.add({key(1): GOOD})
    (n_pages,) = cache._connection.execute("PRAGMA page_count").fetchone()
    cache._connection.execute(f"PRAGMA max_page_count = {n_pages}")
    many = {key(number): replace(GOOD, text=GREETING * 500) for number in range(2, 40)}
    with pytest.raises(StoreError, match="disk is full"):
        cache.add(many)
    cache._connection.execute("PRAGMA max_page_count = 100000")
    cache.add(many)
    assert len(cache.find(list(many))) == 38
