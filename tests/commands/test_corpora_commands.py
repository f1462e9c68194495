"""Votes, mapped labels and several corpora, from the command line; the raters are SIMULATED."""

import json

import numpy as np
import polars as pl
import pytest
import sklearn.metrics

from fixtures.raters import simulate_votes
from koser.data.manifest import Manifest
from koser.data.splits import Split
from koser.models.checkpoint import Checkpoint, find_checkpoint

QUICK = [
    *("--set", "train.epochs=2", "--set", "train.batch_size=8", "--set", "speeds=[]"),
    *("--set", "cnn.channels=[4, 6]", "--set", "cnn.hidden_size=8", "--workers", "1", "--quiet"),
]
MAPPING = 'keep = ["angry", "neutral"]\n[drop]\nsadness = "not in the other corpus"\n'


@pytest.fixture
def corpora(koser, tone_corpus, tmp_path):
    """``a.parquet`` and ``b.parquet``: the same tones as two corpora, b without sadness."""
    status, _, err = koser(
        "prepare", "folder", tone_corpus(n_speakers=5, n_each=2), "--out", "a.parquet",
        "--speaker-pattern", r"(s\d)_",
    )  # fmt: skip
    assert status == 0, err
    (tmp_path / "two.toml").write_text(MAPPING, encoding="utf-8")
    made = Manifest.read(tmp_path / "a.parquet")
    other = Manifest(made.table.with_columns(corpus=pl.lit("b")), made.provenance)
    other.write(tmp_path / "whole-b.parquet")
    simulate_votes(made, agreement=0.6).write(tmp_path / "rated.parquet")
    return tmp_path


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def train(koser, *arguments):
    status, out, err = koser("train", "--model", "mfcc", *arguments, *QUICK)
    assert status == 0, err
    return out


def test_a_mapping_keeps_the_books_and_several_corpora_train_together(koser, corpora):
    status, out, err = koser(
        "map", "whole-b.parquet", "--mapping", "two.toml", "--out", "b.parquet"
    )
    assert status == 0, err
    assert "left out: label 'sadness' dropped by the mapping 'two'" in out
    n_before = len(Manifest.read(corpora / "a.parquet"))
    mapped = Manifest.read(corpora / "b.parquet")
    assert len(mapped) + len(mapped.provenance.left_out) == n_before

    out = train(
        koser, "--manifest", "a.parquet", "--manifest", "b.parquet", "--split", "speaker",
        "--set", "train.balance=corpus+label", "--set", "corpora.normalise=corpus",
        "--set", "corpora.adversary=0.5", "--out", "both",
    )  # fmt: skip
    assert "By corpus: b UAR" in out or "By corpus: tones UAR" in out
    metrics = metrics_of(corpora / "both")
    groups = {each["name"]: each for each in metrics["subgroups"]["corpus"]["groups"]}
    assert set(groups) == {"tones", "b"}
    assert sum(each["n"] for each in groups.values()) == metrics["n"]
    shared = {leak["kind"]: leak["n_shared"] for leak in metrics["leaks"]}
    assert shared["speaker"] == 0
    assert "Only tones has the label sadness" in (corpora / "both" / "run.json").read_text("utf-8")
    # The model that is kept is an ordinary one.
    state = Checkpoint.read(find_checkpoint(corpora / "both")).state
    assert not any("adversary" in name for name in state)


def test_the_matrix_has_a_runs_own_test_within_and_all_of_the_other_corpus_across(koser, corpora):
    koser("map", "whole-b.parquet", "--mapping", "two.toml", "--out", "b.parquet")
    train(koser, "--manifest", "a.parquet", "--split", "speaker", "--out", "on-a")
    train(koser, "--manifest", "b.parquet", "--split", "kfold", "--folds", "2", "--out", "on-b")
    status, out, err = koser(
        "evaluate", "on-a", "on-b", "--matrix", "--manifest", "a.parquet", "--manifest",
        "b.parquet", "--out", "matrix", "--report-language", "en", "--quiet",
    )  # fmt: skip
    assert status == 0, err
    matrix = json.loads((corpora / "matrix" / "matrix.json").read_text(encoding="utf-8"))
    assert matrix["labels"] == ["angry", "neutral"]
    cells = {(each["run"], each["corpus"]): each for each in matrix["cells"]}
    assert [(*key, each["is_within"]) for key, each in cells.items()] == [
        ("on-a", "tones", True), ("on-a", "b", False), ("on-b", "tones", False), ("on-b", "b", True)
    ]  # fmt: skip
    predictions = pl.read_parquet(corpora / "on-a" / "predictions.parquet")
    own = predictions.filter(pl.col("label") != "sadness")
    answers = np.where(own["p_angry"] > own["p_neutral"], "angry", "neutral")
    expected = sklearn.metrics.balanced_accuracy_score(own["label"], answers)
    within = cells["on-a", "tones"]
    assert within["uar"] == pytest.approx(expected)
    assert (within["n"], within["n_left_out"]) == (own.height, predictions.height - own.height)
    across = cells["on-a", "b"]
    assert (across["n"], across["n_speakers"]) == (20, 5)
    assert cells["on-b", "tones"]["n_left_out"] == 10
    assert cells["on-b", "b"]["n"] == 20  # every fold's test part
    assert "within-corpus, kfold" in out
    csv = pl.read_csv(corpora / "matrix" / "matrix.csv")
    assert csv["uar"].to_list() == pytest.approx([each["uar"] for each in matrix["cells"]])
    text = (corpora / "matrix" / "matrix.md").read_text(encoding="utf-8")
    assert "tested on tones" in text
    page = (corpora / "matrix" / "matrix.html").read_text(encoding="utf-8")
    assert page.count("within-corpus") >= 2
    assert "http" not in page.replace("http://www.w3.org", "")


def test_a_place_that_no_run_asks_for_is_refused(koser, corpora):
    train(koser, "--manifest", "a.parquet", "--split", "speaker", "--out", "run")
    given = ("evaluate", "run", "--manifest", "whole-b.parquet")
    status, _, err = koser(*given, "--whisper", "x")
    assert status == 1
    assert "has no Whisper. Leave --whisper out." in err
    status, _, err = koser(*given, "--matrix", "--text-model", "x")
    assert (status, err) == (
        1, "Error: No run has a model that --text-model is about. Leave it out.\n"
    )  # fmt: skip
    status, _, err = koser(*given, "--matrix", "--restrict-labels")
    assert status == 1
    assert "Leave it out" in err


def test_a_matrix_goes_into_no_folder_that_holds_something(koser, corpora):
    train(koser, "--manifest", "a.parquet", "--split", "speaker", "--out", "run")
    before = {path.name: path.stat().st_mtime_ns for path in (corpora / "run").iterdir()}
    given = ("evaluate", "run", "--matrix", "--manifest", "a.parquet", "--out")
    for out in ("run", "run/metrics.json"):
        status, shown, err = koser(*given, out)
        assert (status, shown) == (1, "")
        assert err == f"Error: '{out}' is not empty. Give another folder with --out.\n"
    assert {path.name: path.stat().st_mtime_ns for path in (corpora / "run").iterdir()} == before
    (corpora / "empty").mkdir()
    assert koser(*given, "empty")[0] == 0
    assert (corpora / "empty" / "matrix.json").is_file()


@pytest.mark.parametrize(
    ("val", "why", "in_korean"),
    [
        ((), "the best on its val part", "검증 점수가 가장 높은 모델입니다"),
        (
            ("--val-fraction", "0"),
            "the first, as there is no val score to choose by",
            "고를 검증 점수가 없어, 학습 4번 가운데 첫 번째 모델입니다: 겹 0, 시드 42.",
        ),
    ],
)
def test_which_training_meets_other_data_and_what_it_has_learnt_from(
    koser, corpora, val, why, in_korean
):
    train(
        koser, "--manifest", "a.parquet", "--split", "kfold", "--folds", "2", "--seeds", "2",
        "--out", "run", *val,
    )  # fmt: skip
    origin = Checkpoint.read(find_checkpoint(corpora / "run")).origin
    split = Split.read(corpora / "run" / "split.parquet")
    n_train = len(split.ids(origin["fold"], "train"))
    learnt = f"has learnt from {n_train} of the 30 utterances of tones."
    given = ("--manifest", "whole-b.parquet")
    status, out, err = koser("evaluate", "run", *given, "--out", "plain")
    assert status == 0, err
    out = " ".join(out.split())
    which = f"fold {origin['fold']}, seed {origin['seed']}"
    assert f"It is one of 4 trainings, {why}: {which}." in out
    assert f"It {learnt}" in out
    kept = metrics_of(corpora / "plain")["kept_model"]
    assert (kept["n_train"], kept["n_corpus"], kept["is_chosen"]) == (n_train, 30, not val)
    page = (corpora / "plain" / "report.html").read_text(encoding="utf-8")
    assert in_korean in page
    assert f"tones의 발화 30개 중 {n_train}개로 학습했습니다." in page
    status, out, err = koser("evaluate", "run", "--matrix", *given, "--out", "matrix")
    assert status == 0, err
    out = " ".join(out.split())
    assert f"On other corpora run is its kept model, one of 4 trainings, {why}; within" in out
    assert f"The kept model of run {learnt}" in out
    matrix = json.loads((corpora / "matrix" / "matrix.json").read_text(encoding="utf-8"))
    assert matrix["runs"][0]["kept_model"] == kept
    text = (corpora / "matrix" / "matrix.md").read_text(encoding="utf-8")
    assert f"tones의 발화 30개 중 {n_train}개로 학습했습니다" in text
    assert "kept model" not in text


def test_training_on_votes_is_scored_against_them_with_a_person_beside_it(koser, corpora):
    out = train(
        koser, "--manifest", "rated.parquet", "--split", "speaker", "--set", "train.target=votes",
        "--set", "train.label_smoothing=0", "--out", "run",
    )  # fmt: skip
    for what in (
        "JS divergence to votes",
        "KL from votes",
        "top-1 among",
        "UAR, one rater",
        "against this label",
    ):
        assert what in " ".join(out.split())
    metrics = metrics_of(corpora / "run")
    assert metrics["votes"]["n"] == metrics["n"]
    assert metrics["votes"]["prior"]["js"] > 0
    page = (corpora / "run" / "report.html").read_text(encoding="utf-8")
    assert "평가자의 표와 비교" in page
    assert "평가자 한 명 대 이 라벨" in page
    status, out, err = koser("evaluate", "run", "--manifest", "rated.parquet", "--out", "again")
    assert status == 0, err
    assert metrics_of(corpora / "again")["votes"]["n"] == 30


def test_unanimous_raters_train_the_same_model_as_labels(koser, corpora):
    made = Manifest.read(corpora / "a.parquet")
    simulate_votes(made, agreement=1.0).write(corpora / "agreed.parquet")
    for name, target in (("a", "label"), ("agreed", "votes")):
        train(
            koser, "--manifest", f"{name}.parquet", "--split", "speaker",
            "--set", f"train.target={target}", "--out", name,
        )  # fmt: skip
    one, other = (
        pl.read_parquet(corpora / name / "predictions.parquet") for name in ("a", "agreed")
    )
    assert one.equals(other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--model", "mfcc", "--manifest", "a.parquet", "--split", "speaker", "--set",
          "train.target=votes"], "has raters' votes"),
        (["train", "--model", "mfcc", "--manifest", "a.parquet", "--split", "speaker", "--set",
          "corpora.adversary=1"], "needs several corpora"),
        (["train", "--model", "mfcc", "--manifest", "a.parquet", "--manifest", "a.parquet",
          "--split", "speaker"], "is in two of the manifests"),
        (["map", "a.parquet", "--mapping", "nine", "--out", "x.parquet"], "No mapping is called"),
        (["evaluate", "x", "y", "--manifest", "a.parquet"], "add --matrix"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_in_one_line(koser, corpora, arguments, message):
    status, _, err = koser(*arguments)
    assert status != 0
    assert message in err
    assert err.count("\n") <= 2
    assert "Traceback" not in err
