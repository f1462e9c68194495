"""The local engine: order, laziness, processes that die, rows that kill them."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from itertools import chain
from pathlib import Path

import pytest

from koser.engines.local import SERIAL, LocalEngine
from koser.errors import ConfigError, EngineError


class Doubling:
    """Doubles numbers and says where; some numbers are not like others."""

    def __init__(self, folder=None, *, deadly=(), fails=None):
        if fails is not None:
            raise ConfigError(fails)
        self._folder = folder
        self._deadly = deadly

    def read(self, rows):
        return rows

    def finish(self, rows):
        for row in rows:
            if row in self._deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            if row == 12:
                raise ValueError("twelve")
            if self._folder is not None:
                (self._folder / f"{row}-{os.getpid()}-{time.monotonic_ns()}").touch()
        return [(2 * row, os.getpid()) for row in rows]


def lost(row):
    return (f"lost {row}", 0)


def chunks_of(rows, size):
    return [rows[first : first + size] for first in range(0, len(rows), size)]


def values(results):
    return [value for value, _ in chain.from_iterable(results)]


ROWS = [row for row in range(40) if row != 12]
EXPECTED = [2 * row for row in ROWS]


@pytest.mark.parametrize("engine", [SERIAL, LocalEngine(2)], ids=["one", "two"])
def test_results_come_in_the_order_of_the_rows(engine):
    results = list(engine.map_chunks(Doubling, chunks_of(ROWS, 3), lost=lost))
    assert values(results) == EXPECTED
    assert [len(each) for each in results] == [3] * 13
    is_here = {pid for _, pid in chain.from_iterable(results)} == {os.getpid()}
    assert is_here == (engine is SERIAL)


def test_what_is_small_or_has_the_gpu_stays_in_this_process():
    results = LocalEngine(2).map_chunks(Doubling, chunks_of(ROWS, 3), lost=lost, here=True)
    assert {pid for _, pid in chain.from_iterable(results)} == {os.getpid()}


@pytest.mark.parametrize("engine", [SERIAL, LocalEngine(2)], ids=["one", "two"])
def test_chunks_are_read_only_as_they_are_needed(engine):
    taken = []

    def chunks():
        for number in range(1000):
            taken.append(number)
            yield [1, 2]

    results = engine.map_chunks(Doubling, chunks(), lost=lost)
    for _ in range(5):
        next(results)
    assert len(taken) < 20
    results.close()


@pytest.mark.parametrize("engine", [SERIAL, LocalEngine(2)], ids=["one", "two"])
@pytest.mark.parametrize("factory", [Doubling, partial(Doubling, fails="twelve")])
def test_what_the_work_raises_reaches_the_caller(engine, factory):
    with pytest.raises(ValueError, match="twelve"):
        list(engine.map_chunks(factory, [[1], [12]], lost=lost))


def test_the_rows_of_a_killed_process_are_done_again(tmp_path):
    results = LocalEngine(2).map_chunks(partial(Doubling, tmp_path), chunks_of(ROWS, 3), lost=lost)
    first = next(results)
    os.kill(first[0][1], signal.SIGKILL)
    assert values([first, *results]) == EXPECTED


def test_only_the_row_that_kills_is_lost():
    work = partial(Doubling, deadly=(7, 31))
    results = list(LocalEngine(2).map_chunks(work, chunks_of(ROWS, 5), lost=lost))
    assert values(results) == [f"lost {row}" if row in (7, 31) else 2 * row for row in ROWS]


def test_work_that_always_kills_ends_with_what_to_do():
    results = LocalEngine(2).map_chunks(partial(Doubling, deadly=ROWS), [ROWS], lost=lost)
    with pytest.raises(EngineError, match=r"die whatever they are.*--workers.*--resume"):
        list(results)


def test_workers_end_when_their_parent_is_killed(tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, sys, time
            from koser.engines.local import LocalEngine

            class Sleeping:
                def read(self, rows): return rows
                def finish(self, rows):
                    print(os.getpid(), flush=True)
                    time.sleep(600)

            if __name__ == "__main__":
                list(LocalEngine(2).map_chunks(Sleeping, [[1], [2]], lost=str))
            """
        ),
        encoding="utf-8",
    )
    driver = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, encoding="ascii")
    with driver:
        workers = [int(driver.stdout.readline()) for _ in range(2)]
        driver.kill()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.05)
