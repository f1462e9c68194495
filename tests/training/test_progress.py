"""How often a training writes the file that it resumes from."""

import pytest
import torch

from koser.models.checkpoint import load_tensors
from koser.training import progress
from koser.training.progress import Epoch, Progress


class Clock:
    """Time that passes only when it is told to."""

    now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    write = progress.save_tensors

    def slow_write(values, file):
        clock.now += 0.5
        write(values, file)

    monkeypatch.setattr(progress, "save_tensors", slow_write)
    return clock


@pytest.mark.parametrize(("seconds", "most", "least"), [(0.1, 6, 4), (20.0, 100, 100)])
def test_saving_takes_a_twentieth_of_the_time_and_long_epochs_are_all_kept(
    clock, tmp_path, seconds, most, least
):
    """Epochs of .1 s of a saving of .5 s: one in 95 of them; epochs of 20 s: every one."""
    n_epochs = 500 if seconds < 1 else 100
    network = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(network.parameters())
    file, state, saved, seen = tmp_path / "last.pth", Progress("x"), [], None
    for number in range(1, n_epochs + 1):
        clock.now += seconds
        state.add(Epoch(number, 0.1, 1.0, 0.5, None, None, None, seconds), network)
        state.save(file, network, optimizer)
        written = file.stat()
        if (written.st_ino, written.st_mtime_ns) != seen:
            seen = written.st_ino, written.st_mtime_ns
            n_kept = len(load_tensors(file)["history"])
            saved += [] if saved[-1:] == [n_kept] else [n_kept]
        assert (number - n_kept) * seconds <= 10.0  # 20 savings, what a kill loses at most
    assert saved[0] == 1
    assert least <= len(saved) <= most
    assert 0.5 * len(saved) <= 0.06 * clock.now
