import json
from pathlib import Path

import pytest

SPACE = "[train]\nepochs = [1, 2]\n[cnn]\ndropout = {low = 0.1, high = 0.5}\n"


def tune(*arguments):
    return [
        "tune", "--model", "mfcc", "--manifest", "m.parquet", "--space", "space.toml",
        "--split", "kfold", "--folds", "2", "--val-fraction", "0", "--trials", "3",
        "--inner-folds", "2", "--set", "cnn.channels=[4, 6]", "--workers", "1", *arguments,
    ]  # fmt: skip


@pytest.fixture
def space(manifest):
    Path("space.toml").write_text(SPACE, encoding="utf-8")
    return Path("space.toml")


def test_the_command_prints_the_result_with_its_budget(koser, space):
    status, out, err = koser(*tune("--out", "run"))
    assert status == 0, err
    printed = " ".join(out.split())
    assert "Settings chosen in each of 2 folds among 3 by kfold on its own train" in printed
    assert "(2 inner folds, 12 trainings" in printed
    tuning = json.loads((space.parent / "run" / "metrics.json").read_text("utf-8"))["tuning"]
    assert len(tuning["folds"]) == 2
    assert {"train.epochs", "cnn.dropout"} == set(tuning["folds"][0]["settings"])


def test_a_search_is_resumed_and_another_one_refused(koser, space):
    assert koser(*tune("--out", "run"))[0] == 0
    status, _, err = koser(*tune("--out", "run", "--resume", "--trials", "4"))
    assert status == 1
    assert "different: tuning" in err
    (space.parent / "run" / "report.html").unlink()
    before = (space.parent / "run" / "predictions.parquet").read_bytes()
    status, _, err = koser(*tune("--out", "run", "--resume"))
    assert status == 0, err
    assert (space.parent / "run" / "predictions.parquet").read_bytes() == before


def test_a_run_that_was_killed_right_after_its_report_is_tidied_when_resumed(koser, space):
    assert koser(*tune("--out", "run"))[0] == 0
    before = {path.name for path in (space.parent / "run").iterdir()}
    (space.parent / "run" / ".lock").touch()
    assert koser(*tune("--out", "run", "--resume"))[0] == 0
    assert {path.name for path in (space.parent / "run").iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--space", "nowhere.toml"], "Cannot read the space 'nowhere.toml'"),
        (["--objective", "accuracy"], "objective = 'accuracy'"),
        (["--inner-folds", "5"], "Fold 0 cannot be tuned"),
        (["--split", "random"], "'random' takes no n_folds"),
    ],
)
def test_what_cannot_be_tuned_is_one_line_and_leaves_nothing(koser, space, arguments, message):
    status, _, err = koser(*tune("--out", "run", *arguments))
    assert status != 0
    assert message in err
    assert "Traceback" not in err
    assert not (space.parent / "run").exists()
