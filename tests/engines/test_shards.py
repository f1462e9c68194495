"""Shards and the list of what is done: killed at any moment, nothing is lost or there twice."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
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
    assert (head["format"], head["n_rows"], head["job"]) == ("koser-shards-1", 25, JOB)
    assert [(each["number"], each["n_rows"], each["n_failed"]) for each in done] == [
        (0, 10, 1), (1, 10, 2), (2, 5, 1)
    ]  # fmt: skip
