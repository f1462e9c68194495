import logging
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from koser.features.residence import Heap, use_and_free


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap, and /proc")
def test_what_a_model_took_is_given_back_before_the_next_one_comes(caplog):
    """Blocks of a size that glibc keeps when they are freed, below one that is still in use."""
    kept = []

    def load():
        return [np.ones(8_000) for _ in range(5_000)]  # 320 MB

    def use(model):
        kept.append(np.ones(8_000))
        return len(model)

    with caplog.at_level(logging.INFO, logger="koser.features.residence"):
        assert use_and_free("blocks", load, use) == 5_000
    before, after = (
        float(re.search(r"([\d.]+) GB resident", record.message)[1]) for record in caplog.records
    )
    assert after - before < 0.1


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap, and /proc")
def test_a_heap_that_is_tended_holds_what_is_in_use(monkeypatch):
    clock = 0.0
    monkeypatch.setattr("koser.features.residence.time.perf_counter", lambda: clock)
    heap = Heap()
    heap.tend()  # it is its turn again seconds later

    def leave_holes():
        blocks = [np.ones(8_000) for _ in range(3_000)]  # 192 MB
        return blocks[::100]

    before = resident_mb()
    kept = leave_holes()
    heap.tend()
    assert resident_mb() - before > 100, "too early, and a heap that nobody tends"
    clock += 11.0
    heap.tend()
    assert resident_mb() - before < 60
    assert len(kept) == 30


def resident_mb():
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024 / 1e6
