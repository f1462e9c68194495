"""Shards and the list of what is done: killed at any moment, nothing is lost or there twice."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import zlib
from dataclasses import asdict
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koser.engines import shards
from koser.engines.local import SERIAL
from koser.engines.shards import DONE_NAME, open_shards, read_shards
from koser.errors import ResultsError

JOB = {"model": "m", "labels": ["angry", "neutral"]}


class Killed(BaseException):
    """The process ends here."""


class Disk:
    """Ends the process at the n-th thing that it does to the disk: before it, or after it."""

    def __init__(self, patch, moment, *, after):
        self._left, self._after = moment, after
        for module, name in ((shards.os, "fsync"), (shards.os, "replace")):
            patch.setattr(module, name, self._counted(getattr(module, name)))

    def _counted(self, function):
        def call(*arguments):
            self._left -= 1
            if self._left == 0 and not self._after:
                raise Killed
            function(*arguments)
            if self._left == 0:
                raise Killed

        return call


class Naming:
    """What is known of rows; of every seventh, only that nothing is."""

    def read(self, rows):
        return rows

    def finish(self, rows):
        return [(row, None if row % 7 == 3 else f"r{row}") for row in rows]


def work_on(path, n_rows, shard_rows):
    """A driver: it may be killed anywhere. Returns the shards it made."""
    made = []
    with open_shards(path, JOB, n_rows=n_rows, shard_rows=shard_rows) as folder:
        todo = [number for number in range(folder.n_shards) if number not in folder.done]
        rows = [
            list(range(number * shard_rows, min(n_rows, (number + 1) * shard_rows)))
            for number in todo
        ]
        results = SERIAL.map_chunks(Naming, rows, lost=str)
        for number, result in zip(todo, results, strict=True):
            table = pl.DataFrame(result, schema={"row": pl.Int64, "name": pl.String}, orient="row")
            folder.write(number, table, n_failed=table["name"].null_count())
            made.append(number)
    return made


def check_whole(path, n_rows):
    """Rows in = rows out + rows reported, each once, in order."""
    found = read_shards(path)
    assert found.is_complete
    table = pl.read_parquet(path / "part-*.parquet") if n_rows else pl.DataFrame({"row": []})
    assert table["row"].to_list() == list(range(n_rows))
    if n_rows:
        assert table["name"].to_list() == [None if r % 7 == 3 else f"r{r}" for r in range(n_rows)]
    assert found.n_failed == sum(row % 7 == 3 for row in range(n_rows))
    assert sum(shard.n_rows for shard in found.done.values()) == n_rows
    files = {each.name for each in path.iterdir()}
    assert files == {DONE_NAME, *(shard.name for shard in found.done.values())}


@settings(deadline=None, max_examples=25)
@given(
    n_rows=st.integers(0, 40),
    shard_rows=st.integers(1, 9),
    kills=st.lists(st.tuples(st.integers(1, 9), st.booleans(), st.integers(0, 200)), max_size=6),
)
def test_no_row_is_lost_or_there_twice_whenever_the_driver_is_killed(n_rows, shard_rows, kills):
    with tempfile.TemporaryDirectory() as root:
        path = Path(root) / "out"
        for moment, after, torn in kills:
            with pytest.MonkeyPatch.context() as patch:
                Disk(patch, moment, after=after)
                try:
                    work_on(path, n_rows, shard_rows)
                except Killed:
                    leave_as_killed(path, torn)
        work_on(path, n_rows, shard_rows)
        check_whole(path, n_rows)
        assert work_on(path, n_rows, shard_rows) == []  # nothing is done twice


def leave_as_killed(path, torn):
    """What SIGKILL leaves and an exception does not: a file in the making, half a line."""
    (path / ".part-000000001.parquet.99.partial").write_bytes(b"half")
    content = (path / DONE_NAME).read_bytes()
    last_line = content.rstrip(b"\n").rpartition(b"\n")[2]
    (path / DONE_NAME).write_bytes(content[: len(content) - min(torn, len(last_line))])


def test_a_driver_that_is_killed_again_and_again_ends_with_every_row_once(tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys, time
            from pathlib import Path
            from engines.test_shards import work_on, Naming

            plain = Naming.finish
            Naming.finish = lambda self, rows: (time.sleep(0.01), plain(self, rows))[1]
            print("ready", flush=True)
            work_on(Path(sys.argv[1]), 900, 10)
            """
        ),
        encoding="utf-8",
    )
    out = tmp_path / "out"
    n_done = []
    places = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    environment = {**os.environ, "PYTHONPATH": places}
    for pause in (0.05, 0.17, 0.23, 0.3):
        driver = subprocess.Popen(
            [sys.executable, script, out], stdout=subprocess.PIPE, env=environment
        )
        with driver:
            assert driver.stdout.readline() == b"ready\n"
            time.sleep(pause)
            driver.send_signal(signal.SIGKILL)
        n_done.append(len(read_shards(out).done) if (out / DONE_NAME).exists() else 0)
    assert n_done == sorted(n_done)
    assert 0 < n_done[-1] < 90  # killed in the middle, or this shows nothing
    work_on(out, 900, 10)
    check_whole(out, 900)


def test_a_shard_that_was_damaged_is_made_again(tmp_path):
    work_on(tmp_path / "out", 30, 10)
    (tmp_path / "out" / "part-000000001.parquet").write_bytes(b"half")
    with pytest.raises(ResultsError, match=r"part-000000001\.parquet' is missing or damaged"):
        read_shards(tmp_path / "out")
    assert work_on(tmp_path / "out", 30, 10) == [1]
    check_whole(tmp_path / "out", 30)


def test_a_shard_that_was_made_again_counts_by_its_last_line(tmp_path):
    out = tmp_path / "out"
    work_on(out, 30, 10)
    (out / "part-000000001.parquet").unlink()
    with open_shards(out, JOB, n_rows=30, shard_rows=10) as folder:
        longer = pl.DataFrame({"row": range(10, 20), "name": [f"r{r}" * 99 for r in range(10)]})
        folder.write(1, longer, n_failed=0)
    found = read_shards(out)
    assert (found.is_complete, found.done[1].n_failed, found.n_failed) == (True, 0, 2)
    assert found.done[1].n_bytes == (out / found.done[1].name).stat().st_size


def test_a_shard_with_rows_that_may_come_is_replaced_and_until_then_counts(tmp_path):
    out = tmp_path / "out"
    old, new = (pl.DataFrame({"row": range(10), "name": [name] * 10}) for name in ("a", "bb"))
    with open_shards(out, JOB, n_rows=20, shard_rows=10) as folder:
        folder.write(0, old, n_failed=3, n_passing=1)
        folder.write(1, old, n_failed=3)
        assert folder.todo == [0]
    for moment, after, name in ((1, False, "a"), (2, False, "a"), (3, False, "bb")):
        with (
            pytest.MonkeyPatch.context() as patch,
            open_shards(out, JOB, n_rows=20, shard_rows=10) as folder,
        ):
            assert folder.todo == [0]
            Disk(patch, moment, after=after)
            with pytest.raises(Killed):
                folder.write(0, new, n_failed=0)
        assert pl.read_parquet(out / "part-000000000.parquet")["name"].to_list() == [name] * 10
        if name == "a":
            assert read_shards(out).is_complete
            assert read_shards(out).done[0].n_failed == 3
    with open_shards(out, JOB, n_rows=20, shard_rows=10) as folder:
        folder.write(0, new, n_failed=0)
        assert (folder.todo, folder.is_complete, folder.n_failed) == ([], True, 3)
        with pytest.raises(ResultsError, match=r"Shard 0 .* again"):
            folder.write(0, new, n_failed=0)
    assert read_shards(out).n_failed == 3


def test_what_is_kept_of_a_shard_is_read_only_while_it_is_whole(tmp_path):
    out = tmp_path / "out"
    table = pl.DataFrame({"row": range(10)})
    with open_shards(out, JOB, n_rows=20, shard_rows=10) as folder:
        folder.write(0, table, n_failed=0)
        assert folder.read(0).equals(table)
        assert folder.read(1) is None
        path = out / folder.done[0].name
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)
        assert folder.read(0) is None
        path.unlink()
        assert folder.read(0) is None


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_a_bit_that_flips_in_the_list_costs_its_own_shard_at_most(whole_list, data):
    """Two, if the bit made two lines one; the head tells that it is damaged."""
    folder, listed = whole_list
    place = data.draw(st.integers(0, len(listed) - 1))
    raw = bytearray(listed)
    raw[place] ^= 1 << data.draw(st.integers(0, 7))
    (folder / DONE_NAME).write_bytes(raw)
    if place <= listed.index(b"\n"):
        for opening in (
            lambda: read_shards(folder),
            open_shards(folder, JOB, n_rows=30, shard_rows=10).__enter__,
        ):
            with pytest.raises(ResultsError, match=r"done\.jsonl' is damaged\. Remove"):
                opening()
        assert (folder / DONE_NAME).read_bytes() == raw
        return
    found = read_shards(folder)
    with open_shards(folder, JOB, n_rows=30, shard_rows=10) as opened:
        assert opened.done == found.done
    assert len(found.done) >= 1
    (folder / DONE_NAME).write_bytes(listed)
    assert found.done.items() <= read_shards(folder).done.items()


@pytest.fixture(scope="module")
def whole_list(tmp_path_factory):
    """A complete folder, and its list."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    work_on(folder, 30, 10)
    return folder, (folder / DONE_NAME).read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"number": "1"}, {"number": 7}, {"number": -1}, {"number": True}, {"n_rows": 9},
        {"n_rows": None}, {"n_failed": 11}, {"n_failed": -1}, {"n_bytes": 1.5}, {"crc": []},
        {"extra": 1}, {"n_passing": 11}, {"n_passing": "0"},
    ],
)  # fmt: skip
def test_a_line_that_makes_no_sense_counts_as_not_there(tmp_path, change):
    out = tmp_path / "out"
    work_on(out, 30, 10)
    as_first_version(out, {1: change})
    assert sorted(read_shards(out).done) == [0, 2]
    assert work_on(out, 30, 10) == [1]
    check_whole(out, 30)


@pytest.mark.parametrize("line", [b"[]", b"1", b"null", b'"x"', b"{}", b"\xff", b"", b"{"])
def test_a_line_that_is_no_shard_is_passed_over(tmp_path, line):
    out = tmp_path / "out"
    work_on(out, 30, 10)
    with (out / DONE_NAME).open("ab") as file:
        file.write(line + b"\n")
    assert read_shards(out).is_complete
    assert work_on(out, 30, 10) == []


@pytest.mark.parametrize(
    "head",
    [b"[]", b"{}", b"x", b"null", b'{"format": "koser-shards-1"}',
     b'{"format": "koser-shards-1", "n_rows": 30, "shard_rows": 0, "job": {}}'],
)  # fmt: skip
def test_a_head_that_makes_no_sense_is_told(tmp_path, head):
    (tmp_path / DONE_NAME).write_bytes(head + b"\n")
    with pytest.raises(ResultsError, match=r"done\.jsonl' is damaged\. Remove"):
        read_shards(tmp_path)
    with (
        pytest.raises(ResultsError, match=r"done\.jsonl' is damaged\. Remove"),
        open_shards(tmp_path, JOB, n_rows=30, shard_rows=10),
    ):
        pass


def test_a_list_of_the_first_version_is_read_and_gone_on_with(tmp_path):
    out = tmp_path / "out"
    work_on(out, 30, 10)
    as_first_version(out, {})
    found = read_shards(out)
    # nobody wrote down why rows failed: each failure may pass
    assert [each.n_passing for each in found.done.values()] == [1, 2, 1]
    assert work_on(out, 30, 10) == []
    (out / "part-000000001.parquet").unlink()
    assert work_on(out, 30, 10) == [1]
    check_whole(out, 30)


def test_a_list_of_a_later_version_is_refused(tmp_path):
    work_on(tmp_path / "out", 30, 10)
    path = tmp_path / "out" / DONE_NAME
    path.write_bytes(b'{"format": "koser-shards-9", "what": 1}\n')
    with pytest.raises(ResultsError, match="no list of shards that this koser knows"):
        read_shards(tmp_path / "out")
    with pytest.raises(ResultsError, match="another version of koser"):
        work_on(tmp_path / "out", 30, 10)


def as_first_version(folder, changes):
    """Write the list as koser 0.1 did, without checksums, its lines changed by number."""
    head, *lines = map(json.loads, (folder / DONE_NAME).read_bytes().splitlines())
    values = [{**head, "format": "koser-shards-1"}]
    for line in lines:
        del line["n_passing"]
        values.append({**line, **changes.get(line["number"], {})})
    for each in values:
        each.pop("line_crc")
    text = "".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in values)
    (folder / DONE_NAME).write_text(text, encoding="utf-8")


def test_where_nothing_can_be_locked_shards_are_written_with_a_warning(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(fcntl, "flock", refusing(errno.ENOSYS))
    work_on(tmp_path / "out", 30, 10)
    check_whole(tmp_path / "out", 30)
    assert "cannot be locked: let one process at a time write" in caplog.text


def test_a_lock_that_fails_otherwise_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", refusing(errno.EIO))
    with pytest.raises(ResultsError, match=f"Cannot write to '.*': {os.strerror(errno.EIO)}"):
        work_on(tmp_path / "out", 30, 10)


def refusing(number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    return refuse


def test_results_of_another_job_are_refused_by_what_differs(tmp_path):
    work_on(tmp_path / "out", 30, 10)
    with (
        pytest.raises(ResultsError, match=r"another job \(model was m, is other\)"),
        open_shards(tmp_path / "out", {**JOB, "model": "other"}, n_rows=30, shard_rows=10),
    ):
        pass
    with (
        pytest.raises(ResultsError, match=r"shard_rows was 10, is 20"),
        open_shards(tmp_path / "out", JOB, n_rows=30, shard_rows=20),
    ):
        pass


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x", encoding="utf-8")
    with (
        pytest.raises(ResultsError, match="folder of something else"),
        open_shards(tmp_path, JOB, n_rows=1, shard_rows=1),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_processes_do_not_write_to_one_folder(tmp_path):
    with (
        open_shards(tmp_path / "out", JOB, n_rows=1, shard_rows=1),
        pytest.raises(ResultsError, match="Another process writes"),
        open_shards(tmp_path / "out", JOB, n_rows=1, shard_rows=1),
    ):
        pass


@pytest.mark.parametrize(("number", "height"), [(0, 9), (0, 11), (2, 10), (1, 10)])
def test_a_shard_is_written_once_and_with_its_own_number_of_rows(tmp_path, number, height):
    table = pl.DataFrame({"row": range(height)})
    with open_shards(tmp_path / "out", JOB, n_rows=25, shard_rows=10) as folder:
        folder.write(1, table.clear().vstack(pl.DataFrame({"row": range(10)})), n_failed=0)
        with pytest.raises(ResultsError, match=f"Shard {number} .* takes"):
            folder.write(number, table, n_failed=0)


def test_what_cannot_be_written_keeps_what_is_done(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with open_shards(tmp_path / "out", JOB, n_rows=20, shard_rows=10) as folder:
        folder.write(0, pl.DataFrame({"row": range(10)}), n_failed=0)
        monkeypatch.setattr(shards.os, "fsync", full)
        with pytest.raises(ResultsError, match=r"No space left on device.*What is done is kept"):
            folder.write(1, pl.DataFrame({"row": range(10)}), n_failed=0)
    assert list(read_shards(tmp_path / "out").done) == [0]


def test_the_list_is_json_that_people_can_read(tmp_path):
    work_on(tmp_path / "out", 25, 10)
    lines = (tmp_path / "out" / DONE_NAME).read_text(encoding="utf-8").splitlines()
    head, *done = map(json.loads, lines)
    assert (head["format"], head["n_rows"], head["job"]) == ("koser-shards-2", 25, JOB)
    assert [(each["number"], each["n_rows"], each["n_failed"]) for each in done] == [
        (0, 10, 1), (1, 10, 2), (2, 5, 1)
    ]  # fmt: skip
    for line in (head, *done):
        found = line.pop("line_crc")
        assert found == zlib.crc32(json.dumps(line, ensure_ascii=False).encode())
    assert done == [asdict(shard) for shard in read_shards(tmp_path / "out").done.values()]
