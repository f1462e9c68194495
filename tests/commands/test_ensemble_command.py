"""``koser train --model ensemble``, as typed: what lands, what is printed, what is refused."""

import csv
import json

import numpy as np
import polars as pl
import pytest

from koser.reporting.runs import RunFolder

QUICK = [
    *("--set", "inner.n_folds=2", "--set", "systems.mfcc.cnn.channels=[4, 6]"),
    *(
        part
        for name in ("mfcc", "wav2vec2")
        for each in ("train.epochs=2", "speeds=[]")
        for part in ("--set", f"systems.{name}.{each}")
    ),
]


@pytest.fixture
def manifest(koser, tone_corpus):
    status, _, err = koser(
        "prepare", "folder", tone_corpus(n_speakers=4, n_each=2), "--out", "m.parquet",
        "--speaker-pattern", r"(s\d)_",
    )  # fmt: skip
    assert status == 0, err
    return "m.parquet"


@pytest.fixture
def train(koser, manifest, encoder_folder):
    def run(*more, members="mfcc,wav2vec2"):
        return koser(
            "train", "--model", "ensemble", "--members", members,
            "--encoder", encoder_folder("wav2vec2"), "--manifest", manifest, "--split", "kfold",
            "--folds", "2", "--val-fraction", "0", "--out", "run", "--workers", "1",
            "--report-language", "en", *QUICK, *more,
        )  # fmt: skip

    return run


def test_weights_members_and_their_average_stand_beside_the_result(koser, train, tmp_path):
    status, out, err = train()
    assert status == 0, err
    out = " ".join(out.split())  # lines are as long as the terminal is wide
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert [each["fold"] for each in metrics["stacking"]] == [0, 1]
    assert set(RunFolder.read(tmp_path / "run").pretrained) == {"encoder"}  # none reads
    for each in metrics["stacking"]:
        assert sum(each["weights"].values()) == pytest.approx(1)
        assert [sorted(fold) for fold in each["inner_folds"]] == [
            ["n_test", "n_train", "n_val"]
        ] * 2
        assert sum(fold["n_test"] for fold in each["inner_folds"]) == 12
        assert set(each["held_out"]) == {"mfcc", "wav2vec2", "simple average", "ensemble"}
        assert f"{each['temperature']:.3f}" in report
    weights = [each["weights"]["mfcc"] for each in metrics["stacking"]]
    assert f"mfcc {np.mean(weights):.2f} [{min(weights):.2f} to {max(weights):.2f}]" in out
    assert set(metrics["ablations"]) == {"mfcc only", "wav2vec2 only", "simple average"}
    for name, scores in metrics["ablations"].items():
        assert f"{scores['uar']:.3f}" in out
        assert name in out
        assert scores["difference"]["uar"] == pytest.approx(metrics["uar"] - scores["uar"])
    assert "simple average of probabilities" in report
    assert not list((tmp_path / "run").glob("parts/*/last*"))
    before = (tmp_path / "run" / "predictions.parquet").read_bytes()
    (tmp_path / "run" / "report.html").unlink()
    status, _, err = train("--resume")
    assert status == 0, err
    again = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert again["stacking"] == metrics["stacking"]
    assert again["ablations"] == metrics["ablations"]
    assert (tmp_path / "run" / "predictions.parquet").read_bytes() == before

    status, out, err = koser("predict", "run", "tones/angry", "--format", "csv")
    assert status == 0, err
    rows = list(csv.DictReader(out.splitlines()))
    assert len(rows) == 8
    labels = [name.removeprefix("p_") for name in pl.read_parquet("run/predictions.parquet").columns
              if name.startswith("p_")]  # fmt: skip
    for row in rows:
        assert sum(float(row[label]) for label in labels) == pytest.approx(1)
    status, _, err = koser("export", "run", "--out", "model.onnx")
    assert status == 1
    assert "cannot be exported to one ONNX file" in err


@pytest.mark.parametrize(
    ("members", "more", "message"),
    [
        ("mfcc", [], "needs two members or more"),
        ("mfcc,wav2vec3", [], "no system is called 'wav2vec3'"),
        ("mfcc,ensemble", [], "an ensemble cannot be a member of one"),
        ("mfcc,wav2vec2", ["--whisper", "x"], "no member has a section 'whisper'"),
        ("mfcc,wav2vec2", ["--set", 'members=["mfcc"]'], "name them twice"),
        ("mfcc,wav2vec2", ["--set", "inner.n_folds=3"], "of 2 × speaker"),
        ("mfcc,wav2vec2", ["--val-fraction", "0.1"], "What works: --val-fraction 0 --set"),
    ],
)
def test_mistakes_are_refused_in_one_line(train, members, more, message, tmp_path):
    status, _, err = train(*more, members=members)
    assert status == 1
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_members_of_a_system_without_any_are_refused(koser, manifest):
    status, _, err = koser(
        "train", "--model", "mfcc", "--members", "a,b", "--manifest", manifest, "--split", "random"
    )
    assert status == 1
    assert "System 'mfcc' has no members, so --members a,b would change nothing" in err
