"""``koser doctor`` on what bulk prediction, `koser tune` and `koser regress` leave."""

import json

import numpy as np
import polars as pl
import pytest

from koser.data.corpora.folder import prepare
from koser.data.manifest import Manifest
from koser.doctor import examine
from koser.engines.shards import open_shards
from koser.errors import RunError
from koser.experiment.dimensions import RegressRequest, run_regression
from koser.experiment.folder import held
from koser.experiment.request import TrainRequest

QUICK = ("train.epochs=1", "train.batch_size=8", "cnn.channels=[4]", "cnn.hidden_size=8")


@pytest.fixture
def regress(tone_corpus, tmp_path):
    """Runs the same regression, on simulated values, whenever it is called."""
    made = prepare(tone_corpus(n_speakers=4, n_each=1), speaker_pattern=r"(s\d)_")
    values = np.random.default_rng(0).normal(size=(2, len(made)))
    table = made.table.with_columns(valence=pl.Series(values[0]), arousal=pl.Series(values[1]))
    Manifest(table, made.provenance).write(tmp_path / "m.parquet")
    train = TrainRequest(
        "mfcc", "speaker", manifest=tmp_path / "m.parquet", overrides=(*QUICK, "speeds=[]")
    )

    def run(folder):
        return run_regression(RegressRequest(train), folder, store_root=tmp_path / "store")

    return run


def verdicts(path):
    return {each.check: each.verdict.value for each in examine(path).findings}


def test_a_folder_of_values_is_whole_until_something_in_it_changes(regress, tmp_path):
    folder = tmp_path / "run"
    regress(folder)
    checks = ("files", "hashes", "checkpoint", "trainings", "predictions", "scores")
    assert verdicts(folder) == dict.fromkeys(checks, "ok")
    path = folder / "predictions.parquet"
    predictions = pl.read_parquet(path)
    predictions.with_columns(pl.col("predicted_valence") + 1).write_parquet(path)
    changed = dict.fromkeys(checks, "ok") | {"hashes": "fail", "scores": "fail"}
    assert verdicts(folder) == changed
    predictions[1:].write_parquet(path)
    assert verdicts(folder)["predictions"] == "fail"
    regress(folder)  # its training is kept
    assert verdicts(folder) == dict.fromkeys(checks, "ok")


def test_an_unfinished_folder_of_values_says_how_to_go_on(regress, tmp_path):
    folder = tmp_path / "run"
    regress(folder)
    (folder / "dimensions.json").unlink()
    first = examine(folder).findings[0]
    assert (first.verdict.value, first.what) == ("warn", "it is not finished")
    assert "koser regress" in first.way_out


def test_values_are_trained_by_one_process_at_a_time_and_after_a_killed_one(regress, tmp_path):
    folder = tmp_path / "run"
    with held(folder), pytest.raises(RunError, match="Another process is training in"):
        regress(folder)
    (folder / ".experiment.json.partial").write_bytes(b"{")  # of a process that was killed
    regress(folder)
    (folder / "experiment.json").write_bytes(b"[]")
    with pytest.raises(RunError, match="Cannot read which experiment"):
        regress(folder)


def test_trials_that_cannot_be_read_are_damaged_trainings(regress, tmp_path):
    folder = tmp_path / "run"
    regress(folder)
    trials = folder / "parts" / "seed42-fold00" / "tuning.json"
    trials.write_text(json.dumps({"trials": []}), encoding="utf-8")
    assert verdicts(folder)["trainings"] == "ok"
    trials.write_text('{"trials": [', encoding="utf-8")
    (finding,) = [each for each in examine(folder).findings if each.check == "trainings"]
    assert finding.what == "damaged: parts/seed42-fold00/tuning.json"


def test_shards_are_whole_until_one_is_damaged_and_unfinished_until_all_are_there(tmp_path):
    with open_shards(tmp_path / "out", {"task": "t"}, n_rows=5, shard_rows=2) as folder:
        for number, n_rows in enumerate((2, 2, 1)):
            folder.write(number, pl.DataFrame({"id": [str(number)] * n_rows}), n_failed=0)
            expected = "ok" if number == 2 else "warn"
            assert verdicts(tmp_path / "out") == {"shards": expected}
    path = tmp_path / "out" / "part-000000001.parquet"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    (finding,) = examine(tmp_path / "out").findings
    assert (finding.verdict.value, finding.what) == ("fail", f"damaged: {path.name}")
    path.write_bytes(raw[:-1])
    (finding,) = examine(tmp_path / "out").findings
    assert "missing or damaged" in finding.what
    with open_shards(tmp_path / "out", {"task": "t"}, n_rows=5, shard_rows=2) as folder:
        folder.write(1, pl.DataFrame({"id": ["made again"] * 2}), n_failed=0)
    assert verdicts(tmp_path / "out") == {"shards": "ok"}
    listed = tmp_path / "out" / "done.jsonl"
    listed.write_bytes(listed.read_bytes().replace(b"koser-shards", b"koser-shirts"))
    (finding,) = examine(tmp_path / "out").findings
    assert (finding.verdict.value, "done.jsonl' is damaged" in finding.what) == ("fail", True)


@pytest.mark.parametrize(
    ("program", "printed"),
    [
        ("main.py", "python main.py"),
        ("/far/my code/main.py", "python '/far/my code/main.py'"),
        ("/venv/bin/koser", "koser"),
        ("/venv/lib/koser/__main__.py", "koser"),
    ],
)
def test_an_unfinished_run_goes_on_with_the_program_that_began_it(tmp_path, program, printed):
    command = [program, "--model", "mfcc"]
    (tmp_path / "run.json").write_text(json.dumps({"command": command}), encoding="utf-8")
    (tmp_path / "parts").mkdir()
    finding = examine(tmp_path).findings[0]
    assert finding.way_out == f"Go on with it: {printed} --model mfcc --resume"
