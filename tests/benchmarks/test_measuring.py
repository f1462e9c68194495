import argparse
import os
import runpy
import subprocess
import sys

import numpy as np
import pytest

from fixtures.benchmarks import BENCHMARKS, load_benchmark

measuring, inputs = load_benchmark("measuring"), load_benchmark("inputs")


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when told to, for wall and CPU time."""
    now = {"wall": 0.0, "cpu": 0.0}
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: now["wall"])
    monkeypatch.setattr(measuring, "cpu_seconds", lambda: now["cpu"])
    return now


def test_rivals_take_turns_and_the_median_round_counts(clock):
    calls = []
    seconds = {"plain": iter([9.0, 2.0, 3.0]), "ours": iter([1.0, 50.0, 4.0])}

    def work(name, cores):
        calls.append(name)
        spent = next(seconds[name])
        clock["wall"] += spent
        clock["cpu"] += cores * spent

    timings = measuring.time_in_turns(
        {"plain": lambda: work("plain", 1), "ours": lambda: work("ours", 2)}, n_rounds=3
    )
    assert calls == ["plain", "ours", "ours", "plain", "plain", "ours"]
    assert timings["plain"].seconds == pytest.approx(3.0)
    assert timings["ours"].seconds == pytest.approx(4.0)
    assert timings["plain"].cores == pytest.approx(1.0)
    assert timings["ours"].cores == pytest.approx(2.0)


def test_cpu_time_counts_children_that_have_ended():
    before = measuring.cpu_seconds()
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", burn], check=True)
    assert measuring.cpu_seconds() - before >= 0.3


def test_anonymous_memory_grows_by_what_is_allocated():
    before = measuring.memory_mb("RssAnon")
    held = np.ones(25_000_000)  # 200 MB
    # the allocator may give back some MB of its own meanwhile
    assert measuring.memory_mb("RssAnon") - before == pytest.approx(held.nbytes / 1e6, abs=3)


def test_a_figure_that_the_system_does_not_keep_is_refused():
    with pytest.raises(KeyError, match="RssNone"):
        measuring.memory_mb("RssNone")


def test_a_fresh_process_is_another_one():
    assert measuring.in_fresh_process(os.getpid) != os.getpid()


@pytest.mark.parametrize(("values", "text"), [([0.5], "0.500"), ([0.5, 0.6, 0.7], "0.600 ± 0.100")])
def test_several_values_are_printed_with_their_sample_sd(values, text):
    assert measuring.mean_and_sd(values) == text


@pytest.mark.parametrize(("is_met", "word"), [(True, "met "), (False, "MISSED ")])
def test_a_missed_target_is_called_one(is_met, word, capsys):
    measuring.print_verdict("ratio 3.0", ">= 12", is_met=is_met)
    line = capsys.readouterr().out
    assert line.startswith(word)
    assert "ratio 3.0" in line
    assert "target >= 12" in line


@pytest.mark.parametrize("sampling_rate", [16_000, 48_000])
def test_clips_have_the_length_asked_for_and_differ(sampling_rate):
    clips = list(inputs.iter_clips(3, seconds=2.5, sampling_rate=sampling_rate))
    assert [clip.shape for clip in clips] == [(2.5 * sampling_rate,)] * 3
    assert len({clip.tobytes() for clip in clips}) == 3
    again = next(iter(inputs.iter_clips(1, seconds=2.5, sampling_rate=sampling_rate)))
    np.testing.assert_array_equal(clips[0], again)


def test_clips_sound_the_same_at_every_sampling_rate():
    (low,), (high,) = (list(inputs.iter_clips(1, sampling_rate=rate)) for rate in (16_000, 48_000))
    first = slice(0, 8_000)  # within the first utterance; further on, rounding moves the joints
    assert np.corrcoef(low[first], high[::3][first])[0, 1] > 0.999


def test_a_corpus_that_is_not_there_ends_in_one_line_that_names_the_option(tmp_path):
    parser = argparse.ArgumentParser()
    inputs.add_corpus_option(parser, "ravdess")
    missing = str(tmp_path / "no")
    with pytest.raises(SystemExit, match=r"give --ravdess FOLDER$") as ended:
        inputs.real_corpus(parser.parse_args(["--ravdess", missing]), "ravdess")
    assert "\n" not in ended.value.code
    assert missing in ended.value.code


def test_the_readme_lists_every_script():
    scripts = {path.name for path in BENCHMARKS.glob("[0-9]*.py")}
    readme = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    assert scripts
    assert {name for name in scripts if f"`{name}`" not in readme} == set()


@pytest.mark.parametrize("script", sorted(BENCHMARKS.glob("[0-9]*.py")), ids=lambda path: path.stem)
def test_a_script_finds_all_that_it_imports(script, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    assert callable(runpy.run_path(str(script), run_name="imported")["main"])
