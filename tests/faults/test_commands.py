"""The fault harness in reduced form, on every long command; in full: ``make soak``.

Each command is killed three times at seeded moments, meets a disk that is too small and
folders without rights, and is run twice at once. `benchmarks/54_faults.py` does the same
with hundreds of kills.
"""

from __future__ import annotations

import numpy as np
import pytest

from faults.filling import fill
from faults.jobs import JOBS, find_job
from faults.kept import differences, lost_and_duplicated, table_content
from faults.killing import Campaign, choose_moment
from faults.launching import Command, Ending
from faults.refusing import forbid, run_twice
from faults.whole import half_written

NAMES = [job.name for job in JOBS]
# What begins in several processes, or loads three models, takes long: `make soak` has them.
QUICK = [name for name in NAMES if "processes" not in name and "multimodal" not in name]


@pytest.mark.integration
@pytest.mark.parametrize("name", NAMES)
def test_a_killed_command_ends_as_if_it_had_not_been(launcher, inputs, tmp_path, name):
    tally = Campaign(launcher, inputs, tmp_path, seed=1).kill(find_job(name), 3)
    assert tally.faults == []
    assert (tally.n_kills, tally.n_lost, tally.n_duplicated) == (3, 0, 0)


@pytest.mark.integration
@pytest.mark.parametrize("name", QUICK)
def test_a_full_disk_is_told_in_one_line_and_costs_nothing_but_time(
    launcher, inputs, tmp_path, name
):
    filled = fill(launcher, inputs, tmp_path, find_job(name), 2, seed=1)
    assert filled.faults == []
    assert filled.n_refused > 0


@pytest.mark.integration
@pytest.mark.parametrize("name", QUICK)
def test_missing_rights_are_told_in_one_line(launcher, inputs, tmp_path, name):
    refused = forbid(launcher, inputs, tmp_path, find_job(name))
    assert refused.faults == []
    assert refused.n_refused == 2


@pytest.mark.integration
@pytest.mark.parametrize("name", QUICK)
def test_a_command_that_runs_twice_at_once_leaves_what_it_leaves_alone(
    launcher, inputs, tmp_path, name
):
    assert run_twice(launcher, inputs, tmp_path, find_job(name)) == []


def test_the_harness_sees_rows_that_are_lost_or_doubled():
    expected = {"p.parquet": [(1, "a"), (2, "b")], "store": {"arrays": {"k": 1}, "twice": []}}
    lost = {"p.parquet": [(1, "a")], "store": {"arrays": {}, "twice": []}}
    doubled = {"p.parquet": [(1, "a"), (2, "b"), (2, "b")], "store": expected["store"]}
    assert lost_and_duplicated(expected, lost) == (2, 0)
    assert lost_and_duplicated(expected, doubled) == (0, 1)
    assert differences(expected, lost) == [
        "p.parquet: 2 entries expected, 1 found, missing: (2, 'b')",
        "store: arrays: k is missing",
    ]
    assert differences(expected, expected) == []


def test_the_harness_sees_files_that_are_not_whole(tmp_path):
    (tmp_path / "a.json").write_text('{"half":', encoding="utf-8")
    (tmp_path / "b.pth").write_bytes(b"PK\x03\x04")
    (tmp_path / "c.html").write_text("<!doctype html><html>", encoding="utf-8")
    (tmp_path / ".d.json.partial").write_text("{", encoding="utf-8")
    (tmp_path / "e.json").write_text("{}", encoding="utf-8")
    found = half_written(tmp_path)
    assert [line.split()[2] for line in found] == ["a.json", "b.pth", "c.html"]


def test_moments_are_spread_over_a_life_and_its_writes(tmp_path):
    life = Ending(0, 8.0, "", "", 40)
    rng = np.random.default_rng(0)
    chosen = [choose_moment(Command((), tmp_path), life, rng) for _ in range(400)]
    by_clock = np.array([each.kill_after for each in chosen if each.kill_after is not None])
    at_writes = np.array([each.kill_at for each in chosen if each.kill_at is not None])
    assert 100 < len(by_clock) < 220
    assert set(at_writes) == set(range(1, 41))
    quarters, _ = np.histogram(by_clock, 4, (0, 8))
    assert quarters.min() > len(by_clock) / 8


@pytest.mark.parametrize(
    ("status", "stderr", "is_clear"),
    [
        (1, "Error: what. why. next.\n", True),
        (1, "Note: something\nError: what. why. next.\n", True),
        (1, "Traceback (most recent call last):\n  ...\nOSError: x\n", False),
        (1, "", False),
        (2, "Usage: koser split\n Error: path 'm.parquet' is not readable.\n", True),
        (2, "Traceback (most recent call last):\n", False),
        (0, "Error: what\n", False),
        (1, "Error: one\nError: two\n", False),
    ],
)
def test_a_refusal_is_clear_if_it_is_one_line(status, stderr, is_clear):
    assert Ending(status, 0.0, "", stderr, 0).is_clear_refusal is is_clear


def test_tables_are_compared_in_order(tmp_path):
    import polars as pl

    pl.DataFrame({"id": ["b", "a"]}).write_parquet(tmp_path / "t.parquet")
    assert table_content(tmp_path / "t.parquet") == {"t.parquet": [("b",), ("a",)]}
