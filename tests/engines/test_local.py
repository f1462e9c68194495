import os
import threading
import time
from functools import partial

import pytest

from koser.engines.local import available_cores, iter_ahead, iter_map
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
    with pytest.raises(
        RunError, match=r"worker process died.*koser train with --resume.*--workers 1"
    ):
        list(iter_map(partial(Square, 0), [1, 13], n_workers=2))


class Endless:
    """Takes longer than any test, unless it fails; a training of hours is like that."""

    def __call__(self, number):
        if number == 0:
            return 0
        if number == 1:
            raise ValueError("one")
        time.sleep(600)
        return None


def test_an_error_does_not_wait_for_the_other_tasks():
    started = time.monotonic()
    with pytest.raises(ValueError, match="one"):
        list(iter_map(Endless, [0, 1, 2], n_workers=2))
    assert time.monotonic() - started < 60


def test_who_wants_no_more_results_does_not_wait_for_the_other_tasks():
    started = time.monotonic()
    results = iter_map(Endless, [0, *[2] * 9], n_workers=2)
    assert next(results) == 0
    results.close()
    assert time.monotonic() - started < 60


def test_at_least_one_core_is_available():
    assert 1 <= available_cores() <= os.cpu_count()


@pytest.mark.parametrize("n_threads", [1, 3])
def test_results_computed_ahead_come_in_the_order_of_the_items(n_threads):
    def slow_first(number):
        time.sleep(0.02 if number % 3 == 0 else 0.0)
        return number**2

    results = iter_ahead(slow_first, range(11), n_threads=n_threads)
    assert list(results) == [number**2 for number in range(11)]


def test_ahead_of_the_consumer_other_threads_compute():
    threads = list(iter_ahead(lambda _: threading.get_ident(), range(4), n_threads=2))
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_no_more_is_computed_ahead_than_the_consumer_can_hold(n_threads):
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    results = iter_ahead(lambda number: number, items(), n_threads=n_threads)
    for n_consumed in range(1, 20):
        next(results)
        assert len(taken) - n_consumed <= n_threads + 1
    results.close()
    assert len(taken) < 100


def test_the_next_result_is_computed_while_the_last_is_used():
    started = threading.Semaphore(0)

    def work(number):
        started.release()
        return number

    results = iter_ahead(work, range(3))
    assert next(results) == 0
    started.acquire()
    assert started.acquire(timeout=10)  # the second, though nobody has asked for it
    results.close()


def test_an_exception_in_a_thread_reaches_the_consumer_in_its_place():
    def fail_at_two(number):
        if number == 2:
            raise ValueError("two")
        return number

    results = iter_ahead(fail_at_two, range(5), n_threads=2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)


def test_nothing_ahead_of_nothing():
    assert list(iter_ahead(str, [])) == []
