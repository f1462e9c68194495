import json
import os
import resource
import signal
import subprocess
import sys
import time

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from koser.errors import StoreError
from koser.features.store import FORMAT, FeatureStore
from koser.features.store_check import largest_difference

DESCRIPTION = {"extractor": "noise", "width": 3}


def key(number: int) -> bytes:
    # the last byte is zero: NumPy's fixed-width bytes drop trailing zeros
    return number.to_bytes(15, "little") + b"\0"


def array(number: int) -> np.ndarray:
    rng = np.random.default_rng(number)
    return rng.normal(size=(3, 1 + number % 50)).astype(np.float32)


def filled(root, numbers) -> FeatureStore:
    store = FeatureStore(root, DESCRIPTION)
    with store.writer() as writer:
        for number in numbers:
            writer.append(key(number), array(number))
    return store


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
    shapes=st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=3), min_size=1, max_size=9)
)
def test_what_is_read_is_what_was_written(tmp_path_factory, shapes):
    root = tmp_path_factory.mktemp("store")
    rng = np.random.default_rng(0)
    arrays = {rng.bytes(16): rng.normal(size=shape).astype(np.float32) for shape in shapes}
    store = FeatureStore(root, DESCRIPTION)
    with store.writer() as writer:
        for name, values in arrays.items():
            writer.append(name, values)
    for reopened in (store, FeatureStore(root, DESCRIPTION)):
        assert len(reopened) == len(arrays)
        for name, values in arrays.items():
            np.testing.assert_array_equal(reopened.read(name), values)
    names = np.array(list(arrays), "S16")
    expected = [shape + [0] * (3 - len(shape)) for shape in shapes]
    assert store.shapes(names).tolist() == expected


def test_a_known_key_is_kept_as_it_was(tmp_path):
    store = filled(tmp_path, [1])
    with store.writer() as writer:
        writer.append(key(1), array(2))
    np.testing.assert_array_equal(store.read(key(1)), array(1))
    assert len(store) == 1


def test_other_settings_live_in_another_folder(tmp_path):
    filled(tmp_path, [1])
    other = FeatureStore(tmp_path, {**DESCRIPTION, "width": 4})
    assert key(1) not in other


@pytest.mark.parametrize("name", ["data.bin", "index.bin"])
@pytest.mark.parametrize("n_lost", [1, 7, 45])
def test_a_tail_cut_off_by_a_kill_costs_only_that_tail(tmp_path, name, n_lost):
    store = filled(tmp_path, range(20))
    path = store.folder / name
    if name == "index.bin":  # killed while the last record was written
        os.truncate(path, path.stat().st_size - n_lost)
        reopened = FeatureStore(tmp_path, DESCRIPTION)
        assert 18 <= len(reopened) < 20
    else:  # killed while data were written that no record names yet
        with path.open("ab") as file:
            file.write(b"x" * n_lost)
        reopened = FeatureStore(tmp_path, DESCRIPTION)
        assert len(reopened) == 20
    with reopened.writer() as writer:
        for number in range(25):
            writer.append(key(number), array(number))
    for number in range(25):
        np.testing.assert_array_equal(reopened.read(key(number)), array(number))


def test_a_process_killed_while_writing_leaves_whole_arrays(tmp_path):
    code = f"""
import sys, numpy as np
from pathlib import Path
from koser.features.store import FeatureStore
rng = np.random.default_rng(0)
with FeatureStore(Path({str(tmp_path)!r}), {DESCRIPTION!r}).writer() as writer:
    for number in range(10**9):
        writer.append(number.to_bytes(16, "little"), np.full((3, 20000), number, np.float32))
        if number == 300:
            print("filled", flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    process.stdout.readline()
    time.sleep(0.05)
    process.kill()
    process.wait()
    store = FeatureStore(tmp_path, DESCRIPTION)
    assert len(store) > 100
    for number in range(len(store)):
        assert (store.read(number.to_bytes(16, "little")) == number).all()


def test_changed_bytes_are_refused_and_the_way_out_is_named(tmp_path):
    store = filled(tmp_path, range(3))
    path = store.folder / "data.bin"
    raw = bytearray(path.read_bytes())
    raw[5] ^= 1
    path.write_bytes(raw)
    with pytest.raises(StoreError, match=r"damaged .* koser doctor .* --repair"):
        FeatureStore(tmp_path, DESCRIPTION).read(key(0))


def test_a_damaged_record_costs_its_own_array_and_no_other(tmp_path):
    store = filled(tmp_path, range(10))
    path = store.folder / "index.bin"
    raw = bytearray(path.read_bytes())
    raw[44 * 4 + 20] ^= 1
    path.write_bytes(raw)
    reopened = FeatureStore(tmp_path, DESCRIPTION)
    assert [number for number in range(10) if key(number) not in reopened] == [4]
    n_bytes = (store.folder / "data.bin").stat().st_size
    with reopened.writer() as writer:
        writer.append(key(4), array(4))
    assert (store.folder / "data.bin").stat().st_size == n_bytes + array(4).nbytes
    for number in range(10):
        np.testing.assert_array_equal(reopened.read(key(number)), array(number))


def test_an_array_is_checked_when_it_is_first_read_and_again_after_a_refresh(tmp_path):
    store = filled(tmp_path, [1])
    store.read(key(1))
    with (store.folder / "data.bin").open("r+b") as file:
        file.write(b"\xff")
    changed = store.read(key(1))  # a view of the file, which was right when it was first read
    assert not np.array_equal(changed, array(1))
    store.refresh()
    with pytest.raises(StoreError, match="damaged"):
        store.read(key(1))


@pytest.mark.parametrize("content", [None, b""])
def test_a_store_without_its_data_is_empty_and_is_filled_again(tmp_path, content):
    store = filled(tmp_path, range(3))
    path = store.folder / "data.bin"
    path.unlink() if content is None else path.write_bytes(content)
    assert len(FeatureStore(tmp_path, DESCRIPTION)) == 0
    again = filled(tmp_path, range(3))
    for number in range(3):
        np.testing.assert_array_equal(again.read(key(number)), array(number))


def test_a_store_of_koser_0_1_is_read_and_gets_its_version(tmp_path):
    store = filled(tmp_path, range(3))
    (store.folder / "format.json").unlink()
    reopened = FeatureStore(tmp_path, DESCRIPTION)
    np.testing.assert_array_equal(reopened.read(key(2)), array(2))
    assert json.loads((store.folder / "format.json").read_text("utf-8")) == {"format": FORMAT}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"format": 2}', r"has format 2, this version of koser reads 1\. Update koser"),
        ("no JSON", r"does not say which format"),
        ("[]", r"does not say which format"),
    ],
)
def test_a_store_of_another_format_is_refused_with_the_way_out(tmp_path, text, line):
    store = filled(tmp_path, range(3))
    (store.folder / "format.json").write_text(text, encoding="utf-8")
    with pytest.raises(StoreError, match=line):
        FeatureStore(tmp_path, DESCRIPTION)


def test_a_disk_that_is_full_is_told_in_one_line_and_what_was_flushed_stays(tmp_path):
    store = filled(tmp_path, range(3))

    def write_until_full():
        with store.writer() as writer:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
            for number in range(3, 100):
                writer.append(key(number), array(number))
                writer.flush()

    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(StoreError, match=r"Cannot write features .* Free some space"):
            write_until_full()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        signal.signal(signal.SIGXFSZ, handler)
    reopened = FeatureStore(tmp_path, DESCRIPTION)
    assert len(reopened) > 3
    for number in range(len(reopened)):
        np.testing.assert_array_equal(reopened.read(key(number)), array(number))


def test_an_unknown_key_is_refused(tmp_path):
    with pytest.raises(StoreError, match="No features for key"):
        filled(tmp_path, [1]).read(key(2))


@pytest.mark.parametrize("numbers", [[1, 0], [1, 9], [7]])
def test_shapes_of_an_unknown_key_are_refused(tmp_path, numbers):
    keys = np.array([key(number) for number in numbers], "S16")
    with pytest.raises(StoreError, match=rf"No features for 1 of {len(keys)} keys"):
        filled(tmp_path, [1, 2]).shapes(keys)


def test_an_empty_array_is_refused(tmp_path):
    store = FeatureStore(tmp_path, DESCRIPTION)
    with pytest.raises(StoreError, match=r"shape \(3, 0\)"), store.writer() as writer:
        writer.append(key(1), np.zeros((3, 0), np.float32))


def test_a_second_writer_waits_for_the_first(tmp_path):
    store = filled(tmp_path, [1])
    code = f"""
from pathlib import Path
import numpy as np
from koser.features.store import FeatureStore
print("ready", flush=True)
with FeatureStore(Path({str(tmp_path)!r}), {DESCRIPTION!r}).writer() as writer:
    writer.append(b"second", np.ones((1, 1), np.float32))
"""
    with store.writer() as writer:
        other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        other.stdout.readline()
        time.sleep(0.3)
        assert other.poll() is None
        writer.append(key(2), array(2))
    assert other.wait(timeout=20) == 0
    store.refresh()
    np.testing.assert_array_equal(store.read(key(2)), array(2))
    assert store.read(b"second").tolist() == [[1.0]]


def test_a_store_cannot_be_made_where_a_file_is(tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(StoreError, match="Cannot open a feature store"):
        FeatureStore(tmp_path / "file", DESCRIPTION)


def test_a_slow_front_end_loses_seconds_of_work_to_a_kill_not_minutes(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr("koser.features.store.time.monotonic", lambda: now)
    store = FeatureStore(tmp_path, DESCRIPTION)
    with store.writer() as writer:
        kept = []
        for number in range(4):
            now += 6.0
            writer.append(key(number), array(number))
            kept.append(len(FeatureStore(tmp_path, DESCRIPTION)))
    assert kept == [0, 2, 2, 4]


@pytest.mark.parametrize("error", [KeyboardInterrupt, StoreError])
def test_of_arrays_that_belong_together_all_are_kept_or_none(tmp_path, monkeypatch, error):
    monkeypatch.setattr("koser.features.store._FLUSH_BYTES", 1)
    kept = []

    def arrays():
        for number in range(3):
            yield key(number), array(number)
            kept.append(len(FeatureStore(tmp_path, DESCRIPTION)))
        raise error

    store = FeatureStore(tmp_path, DESCRIPTION)
    with store.writer() as writer:
        writer.append(key(7), array(7))
        writer.append_together((key(number + 10), array(number)) for number in range(2))
    with pytest.raises(error), store.writer() as writer:
        writer.append_together(arrays())
    assert kept == [3, 3, 3]
    assert store.all_keys() == sorted(key(number).rstrip(b"\0") for number in (7, 10, 11))
    with store.writer() as writer:
        writer.append_together((key(number), array(number)) for number in range(3))
    for number in range(3):
        np.testing.assert_array_equal(store.read(key(number)), array(number))


def test_two_extractions_are_as_far_apart_as_their_farthest_value(tmp_path):
    filled(tmp_path / "one", range(6))
    other = FeatureStore(tmp_path / "two", DESCRIPTION)
    with other.writer() as writer:
        for number in (0, 3, 4):
            writer.append(key(number), array(number) + (0.5 if number == 3 else 0.0))
    expected = 0.5 / np.abs(array(3)).max()
    found = largest_difference(tmp_path / "one", tmp_path / "two")
    assert found == pytest.approx(expected, rel=1e-5)
    assert largest_difference(tmp_path / "one", tmp_path / "one") == 0.0


def test_extractions_without_a_common_array_are_not_compared_and_other_shapes_never_agree(tmp_path):
    filled(tmp_path / "one", range(3))
    filled(tmp_path / "two", range(3, 6))
    assert largest_difference(tmp_path / "one", tmp_path / "two") is None
    assert largest_difference(tmp_path / "one", tmp_path / "nothing") is None
    third = FeatureStore(tmp_path / "three", DESCRIPTION)
    with third.writer() as writer:
        writer.append(key(1), array(1)[:, :1])
    assert largest_difference(tmp_path / "one", tmp_path / "three") == float("inf")


def test_all_keys_are_those_that_were_appended(tmp_path):
    store = filled(tmp_path, [5, 2, 9])
    assert store.all_keys() == sorted(key(number).rstrip(b"\0") for number in (2, 5, 9))
