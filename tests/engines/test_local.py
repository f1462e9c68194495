import os
from functools import partial

import pytest

from koser.engines.local import available_cores, iter_map
from koser.errors import RunError


class Square:
    """Squares numbers and says in which process."""

    def __init__(self, offset: int) -> None:
        self.offset = offset

    def __call__(self, number: int) -> tuple[int, int]:
        if number == 13:
            os._exit(3)  # what a crash in a native library looks like
        if number == 12:
            raise ValueError("twelve")
        return number**2 + self.offset, os.getpid()


@pytest.mark.parametrize("n_workers", [1, 2])
def test_results_come_in_the_order_of_the_items(n_workers):
    results = list(iter_map(partial(Square, 1), range(11), n_workers=n_workers, chunk_size=3))
    assert [value for value, _ in results] == [number**2 + 1 for number in range(11)]


def test_one_worker_is_this_process():
    assert list(iter_map(partial(Square, 0), [2])) == [(4, os.getpid())]


def test_several_workers_are_other_processes():
    results = list(iter_map(partial(Square, 0), range(8), n_workers=2))
    assert os.getpid() not in {pid for _, pid in results}


def test_items_are_read_only_as_they_are_needed():
    taken = []

    def items():
        for number in range(10_000):
            taken.append(number)
            yield 1

    results = iter_map(partial(Square, 0), items(), n_workers=2, chunk_size=5)
    for _ in range(5):
        next(results)
    assert len(taken) < 100
    results.close()


@pytest.mark.parametrize("n_workers", [1, 2])
def test_an_exception_reaches_the_caller(n_workers):
    with pytest.raises(ValueError, match="twelve"):
        list(iter_map(partial(Square, 0), [12], n_workers=n_workers))


def test_a_crashed_worker_is_reported_with_a_way_out():
    with pytest.raises(RunError, match=r"worker process died.*--workers 1"):
        list(iter_map(partial(Square, 0), [1, 13], n_workers=2))


def test_at_least_one_core_is_available():
    assert 1 <= available_cores() <= os.cpu_count()
