"""Runs with enrolment: their protocol is their own, and so are their folders and comparisons."""

import json

import polars as pl
import pytest

from koser.audio.reading import load
from koser.data.corpora.folder import prepare
from koser.data.enrolment import Enrolment
from koser.errors import ComparisonError, ConfigError, SplitError
from koser.experiment.canaries import watch_run
from koser.experiment.request import TrainRequest
from koser.experiment.run import run_experiment
from koser.experiment.series import resolve_series
from koser.experiment.tuning import Tuning
from koser.inference.recognizer import load_recognizer
from koser.reporting.comparison import compare_runs
from koser.reporting.report import ReportOptions, write_report

QUICK = (
    *("train.epochs=2", "train.batch_size=8", "cnn.channels=[4, 6]", "cnn.hidden_size=8"),
    *("speeds=[]", "enrolment.pool=3"),
)


@pytest.fixture
def request_for(tone_corpus, tmp_path):
    prepare(tone_corpus(), speaker_pattern=r"(s\d)_").write(tmp_path / "m.parquet")

    def make(split="speaker", model="mfcc", overrides=QUICK, **others):
        return TrainRequest(
            model, split, manifest=tmp_path / "m.parquet", overrides=overrides, **others
        )

    return make


@pytest.fixture
def run(request_for, tmp_path):
    def run_it(folder, **others):
        made = request_for("leave_one_speaker_out", **others).resolve()
        return run_experiment(made, tmp_path / folder, store_root=tmp_path / "store")

    return run_it


def test_runs_of_every_k_score_the_same_and_stand_apart(run, request_for, tmp_path):
    runs = {k: run(f"k{k}", enrol=k) for k in (0, 2)}
    plain = run("plain")
    tables = {k: each.results.predictions for k, each in runs.items()}
    assert tables[0]["id"].to_list() == tables[2]["id"].to_list()
    assert tables[0].height == 18 == plain.results.predictions.height / 2
    for k, each in runs.items():
        assert each.metrics["protocol"]["protocol"] == f"leave_one_speaker_out enrolled({k})"
        assert each.metrics["n"] == 18
        assert each.metrics["n_speakers"] == 6
        assert (each.folder / f"results_mfcc_leave_one_speaker_out-enrolled-{k}.json").is_file()
        card = (each.folder / "README.md").read_text(encoding="utf-8")
        assert f"leave_one_speaker_out enrolled({k})" in card
    # k = 0 is a model without enrolment; what is heard of others is part of the other one.
    for row in tables[0].filter(pl.col("fold") == 0).iter_rows(named=True):
        same = plain.results.predictions.filter(pl.col("id") == row["id"])
        assert all(row[f"p_{label}"] == same[f"p_{label}"][0] for label in ("angry", "sadness"))
    with pytest.raises(ComparisonError, match=r"another protocol .*enrolled\(2\)"):
        compare_runs([runs[0].folder, runs[2].folder])
    mixed = compare_runs([runs[0].folder, runs[2].folder], allow_mixed=True)
    assert mixed.is_mixed
    assert mixed.pairs == ()


@pytest.mark.parametrize(
    ("language", "said"),
    [
        (
            "en",
            (
                "after so many unlabelled utterances",
                "the first 2 of them are heard, without labels",
            ),
        ),
        ("ko", ("먼저 들려 준 뒤", "그중 앞의 2개를 라벨 없이 먼저 듣고")),
    ],
)
def test_the_report_says_what_was_heard(run, tmp_path, language, said):
    folder = run("run", enrol=2).folder
    write_report(folder, ReportOptions(language), path=tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "leave_one_speaker_out enrolled(2)" in page
    assert all(each in page for each in said)


def test_the_kept_model_enrols_and_gives_the_tested_probabilities(run):
    finished = run("run", enrol=2)
    manifest = finished.experiment.manifest
    options = finished.experiment.config.enrolment
    enrolment = Enrolment.draw(manifest, options)
    recognizer = load_recognizer(finished.folder)
    fold = recognizer.origin["fold"]
    row_of = {name: row for row, name in enumerate(manifest.table["id"])}
    for row in finished.results.predictions.filter(pl.col("fold") == fold).iter_rows(named=True):
        speaker = int(enrolment.speakers[row_of[row["id"]]])
        heard = [manifest.table["path"][each] for each in enrolment.heard(speaker, 2).tolist()]
        # Tones: nobody speaks in them.
        known = recognizer.hear(load(path) for path in heard)
        found = known.predict_file(row["path"]).probabilities
        for label, probability in found.items():
            assert probability == pytest.approx(row[f"p_{label}"], abs=1e-5)


def test_canaries_go_through_the_enrolment_and_pass(request_for, tmp_path):
    finished = run_experiment(
        request_for(enrol=2).resolve(), tmp_path / "run", store_root=tmp_path / "store"
    )
    found = watch_run(finished.experiment, finished.folder, store_root=tmp_path / "store")
    verdicts = {each["name"]: each["verdict"] for each in found["canaries"]}
    assert verdicts == {"permuted_labels": "pass", "noise": "pass", "invariance": "pass"}


def test_every_split_of_a_series_is_held_out_alike(request_for):
    made = resolve_series(request_for(enrol=2), ["speaker", "leave_one_speaker_out"])
    protocols = [each.split.protocol for each in made]
    assert protocols == ["speaker enrolled(2)", "leave_one_speaker_out enrolled(2)"]
    assert made[0].name == "mfcc_speaker-enrolled-2"
    with pytest.raises(SplitError, match="both trained on and tested"):
        resolve_series(request_for(enrol=2), ["speaker", "random"])


def test_what_has_no_enrolment_says_so(request_for, tmp_path):
    with pytest.raises(ConfigError, match=r"'wav2vec2ft' does not adapt .* mfcc, wav2vec2"):
        request_for(model="wav2vec2ft", overrides=(), enrol=2).resolve()
    with pytest.raises(ConfigError, match=r"enrolment\.k=1 name the utterances twice"):
        request_for(overrides=("enrolment.k=1",), enrol=2).resolve()
    with pytest.raises(ConfigError, match="koser tune chooses settings without enrolment"):
        request_for(enrol=2, tuning=Tuning.__new__(Tuning)).resolve()
    split = request_for(enrol=2).resolve().split
    split.write(tmp_path / "split.parquet")
    with pytest.raises(ConfigError, match="Give the split that it was made from"):
        request_for(str(tmp_path / "split.parquet")).resolve()


def test_the_command_trains_enrolled(koser, request_for, tmp_path):
    request = request_for()
    settings = [part for each in QUICK for part in ("--set", each)]
    status, out, _ = koser(
        *("train", "--model", "mfcc", "--split", "speaker", "--enrol", "1", "-q"),
        *("--manifest", str(request.manifest), "--out", str(tmp_path / "run"), *settings),
    )
    assert status == 0
    assert "speaker enrolled(1)" in out
    described = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert described["experiment"]["config"]["enrolment"]["k"] == 1
