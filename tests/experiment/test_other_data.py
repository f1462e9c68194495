"""A finished run on other data: answers, labels that one side lacks, what was learnt from."""

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import polars as pl
import pytest
import sklearn.metrics
import soundfile

from fixtures.text import CREDULOUS
from koser.data.corpora.folder import prepare
from koser.data.manifest import Manifest
from koser.data.splits import Split
from koser.errors import AudioError, ConfigError, EncoderError, LabelError, RunError
from koser.evaluation.selective import Threshold
from koser.evaluation.temperature import Temperature
from koser.experiment import other_data
from koser.experiment.matrix import evaluate_matrix
from koser.experiment.other_data import EvaluateRequest, evaluate_run
from koser.experiment.outputs import kept_files
from koser.experiment.request import TrainRequest
from koser.experiment.run import run_experiment
from koser.features.text.cache import CACHE_NAME
from koser.features.text.transcriber import Transcriber
from koser.hashes import write_sums
from koser.inference.recognizer import load_recognizer
from koser.models.checkpoint import Checkpoint, find_checkpoint
from koser.reporting.comparison import compare_runs
from koser.reporting.language import load_phrases
from koser.reporting.sections.trust import checks

QUICK = ("train.epochs=2", "train.batch_size=8", "cnn.channels=[4, 6]", "cnn.hidden_size=8")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with ``m.parquet``, tones of four speakers, and a run on it."""
    folder, rng = tmp_path_factory.mktemp("work"), np.random.default_rng(0)
    for label, pitch in {"angry": 900.0, "neutral": 300.0, "sadness": 120.0}.items():
        (folder / "tones" / label).mkdir(parents=True)
        for speaker in range(4):
            times = np.arange(round(16_000 * rng.uniform(0.2, 0.3))) / 16_000
            path = folder / "tones" / label / f"s{speaker}_0.wav"
            soundfile.write(path, 0.3 * np.sin(2 * np.pi * pitch * times), 16_000, "PCM_16")
    prepare(folder / "tones", speaker_pattern=r"(s\d)_").write(folder / "m.parquet")
    request = TrainRequest("mfcc", "speaker", manifest=folder / "m.parquet", overrides=QUICK)
    run_experiment(request.resolve(), folder / "run", store_root=folder / "store")
    return folder


@pytest.fixture
def manifest(work):
    return Manifest.read(work / "m.parquet")


@pytest.fixture
def run(work):
    return work / "run"


def elsewhere(manifest, path, labels=None):
    """The same sound as another corpus, with labels renamed."""
    names = labels or {}
    table = manifest.table.with_columns(
        pl.col("label").replace(names), pl.lit("elsewhere").alias("corpus")
    )
    kept = tuple(dict.fromkeys(names.get(label, label) for label in manifest.labels))
    changed = Manifest(table, replace(manifest.provenance, labels=kept)).validate()
    changed.write(path)
    return path


def test_answers_are_the_recognizers_and_scores_are_scikit_learns(run, manifest, tmp_path):
    other = elsewhere(manifest, tmp_path / "o.parquet")
    metrics = evaluate_run(EvaluateRequest(run, other), tmp_path / "out")
    table = pl.read_parquet(tmp_path / "out" / "predictions.parquet")
    recognizer = load_recognizer(run)
    for row in table.head(4).iter_rows(named=True):
        expected = recognizer.predict_file(row["path"]).probabilities
        for label, probability in expected.items():
            assert row[f"p_{label}"] == pytest.approx(probability, abs=1e-5)
    assert metrics["n"] == table.height == len(manifest)
    assert metrics["uar"] == pytest.approx(
        sklearn.metrics.balanced_accuracy_score(table["label"], table["predicted"])
    )
    assert metrics["protocol"]["protocol"] == "other_data"
    assert (tmp_path / "out" / "report.html").is_file()
    # Two runs on the same other data may be compared.
    evaluate_run(EvaluateRequest(run, other, restrict=True), tmp_path / "again")
    comparison = compare_runs([tmp_path / "out", tmp_path / "again"])
    assert comparison.rows[1].against_baseline.differences["accuracy"].value == 0


def test_calibration_abstaining_and_subgroups_are_of_the_new_data(run, manifest, tmp_path):
    """The temperature and the thresholds are the model's; all that is scored is new."""
    other = elsewhere(manifest, tmp_path / "other.parquet")
    chosen = Temperature(2.5, 80), (Threshold("coverage", 0.5, 0.4), Threshold("risk", 0.1, None))
    changed = shutil.copytree(run, tmp_path / "run")
    path = find_checkpoint(changed)
    checkpoint = Checkpoint.read(path)
    described = {"temperature": asdict(chosen[0]), "thresholds": [asdict(t) for t in chosen[1]]}
    origin = {**checkpoint.origin, "calibration": described}
    replace(checkpoint, temperature=2.5, origin=origin).write(path)
    metrics = evaluate_run(EvaluateRequest(changed, other), tmp_path / "out")

    predictions = pl.read_parquet(tmp_path / "out" / "predictions.parquet")
    calibrated = predictions.select(pl.col("^p_.*$")).to_numpy()
    replace(checkpoint, temperature=1.0, origin=origin).write(path)
    evaluate_run(EvaluateRequest(changed, other), tmp_path / "raw")
    raw = pl.read_parquet(tmp_path / "raw" / "predictions.parquet")
    raw = raw.select(pl.col("^p_.*$")).to_numpy()
    assert np.abs(raw - calibrated).max() > 0.01
    y_true, labels = predictions["label"].to_numpy(), list(manifest.labels)
    assert labels == sorted(labels)  # as scikit-learn takes them
    calibration = metrics["calibration"]
    for part, probabilities in (("before", raw), ("after", calibrated)):
        expected = sklearn.metrics.log_loss(y_true, probabilities, labels=labels)
        assert calibration[part]["nll"] == pytest.approx(expected, abs=1e-5)
    assert calibration["temperature"] == {"mean": 2.5, "min": 2.5, "max": 2.5}
    half, none = metrics["selective"]["thresholds"]
    is_answered = calibrated.max(axis=1) >= 0.4
    assert half["coverage"] == pytest.approx(is_answered.mean())
    assert none["threshold"] is None
    groups = metrics["subgroups"]["speaker"]["groups"]
    assert sum(group["n"] for group in groups) == len(manifest)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert 'id="calibration"' in page
    assert 'id="subgroups"' in page


def test_labels_that_the_run_lacks_are_left_out_and_counted(run, manifest, tmp_path):
    other = elsewhere(manifest, tmp_path / "o.parquet", {"sadness": "calm"})
    metrics = evaluate_run(EvaluateRequest(run, other), tmp_path / "out")
    n_calm = (manifest.table["label"] == "sadness").sum()
    assert metrics["n"] == len(manifest) - n_calm
    assert f"{n_calm} of {len(manifest)} utterances carry labels that the run lacks" in " ".join(
        metrics["protocol"]["notes"]
    )
    assert metrics["labels"] == list(manifest.labels)
    assert metrics["labels_absent"] == ["sadness"]
    card = json.loads((tmp_path / "out" / "data.json").read_text(encoding="utf-8"))
    assert card["n_rows_in"] == card["n_utterances"] + sum(card["left_out"].values())
    assert card["left_out"] == {"a label that the run lacks": n_calm}


def test_a_restricted_model_answers_only_labels_of_the_data(run, manifest, tmp_path):
    other = elsewhere(manifest, tmp_path / "o.parquet", {"sadness": "calm"})
    tables = []
    for restrict in (False, True):
        out = tmp_path / f"out{restrict}"
        evaluate_run(EvaluateRequest(run, other, restrict=restrict), out)
        tables.append(pl.read_parquet(out / "predictions.parquet"))
    free, restricted = tables
    assert (restricted["p_sadness"] == 0).all()
    kept = free.select("p_angry", "p_neutral").to_numpy()
    np.testing.assert_allclose(
        restricted.select("p_angry", "p_neutral").to_numpy(),
        kept / kept.sum(axis=1, keepdims=True),
        atol=1e-9,
    )


def test_utterances_and_speakers_that_were_learnt_from_are_found(run, manifest, tmp_path):
    metrics = evaluate_run(EvaluateRequest(run, run.parent / "m.parquet"), tmp_path / "out")
    split = Split.read(run / "split.parquet")
    learnt = {*split.ids(0, "train"), *split.ids(0, "val")}
    leaks = {leak["kind"]: leak for leak in metrics["leaks"]}
    assert leaks["utterance"]["n_shared"] == len(learnt)
    speakers = manifest.table.filter(pl.col("id").is_in(list(learnt)))["speaker"].n_unique()
    assert leaks["speaker"]["n_shared"] == speakers
    found = {each.status for each in checks(metrics, load_phrases("en")) if "learnt" in each.text}
    assert "fail" in found
    other = evaluate_run(
        EvaluateRequest(run, elsewhere(manifest, tmp_path / "o.parquet")), tmp_path / "other"
    )
    assert {leak["kind"]: leak["n_shared"] for leak in other["leaks"]} == {
        "utterance": 0, "speaker": None, "group": None, "script": None,
    }  # fmt: skip


def test_refusals(run, manifest, tmp_path):
    foreign = elsewhere(manifest, tmp_path / "o.parquet", dict.fromkeys(manifest.labels, "calm"))
    with pytest.raises(LabelError, match="None of the 12 utterances carries a label of the run"):
        evaluate_run(EvaluateRequest(run, foreign), tmp_path / "out")
    with pytest.raises(RunError, match="is not empty"):
        evaluate_run(EvaluateRequest(run, run.parent / "m.parquet"), run)
    with pytest.raises(RunError, match=r"no run\.json"):
        evaluate_run(EvaluateRequest(tmp_path, run.parent / "m.parquet"), tmp_path / "out")
    gone = manifest.table.with_columns(
        pl.when(pl.int_range(pl.len()) == 0).then(pl.lit("/no.wav")).otherwise("path").alias("path")
    )
    Manifest(gone, manifest.provenance).write(tmp_path / "gone.parquet")
    with pytest.raises(AudioError, match=r"1 of 12 audio files cannot be read.*no\.wav"):
        evaluate_run(EvaluateRequest(run, tmp_path / "gone.parquet"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_on_several_corpora_knows_what_it_learnt_of_each(work, manifest, tmp_path):
    other = elsewhere(manifest, tmp_path / "o.parquet")
    request = TrainRequest(
        "mfcc", "speaker", manifest=work / "m.parquet", more_manifests=(other,), overrides=QUICK
    )
    run_experiment(request.resolve(), tmp_path / "both", store_root=work / "store")
    learnt = Split.read(tmp_path / "both" / "split.parquet").table.filter(pl.col("part") != "test")
    n_learnt = learnt["id"].str.starts_with("tones/").sum()
    metrics = evaluate_run(EvaluateRequest(tmp_path / "both", work / "m.parquet"), tmp_path / "out")
    leaks = {leak["kind"]: leak["n_shared"] for leak in metrics["leaks"]}
    assert leaks["utterance"] == n_learnt > 0


def test_what_the_model_before_this_one_has_learnt_from_is_not_taken_for_unheard(
    run, manifest, tmp_path
):
    started = shutil.copytree(run, tmp_path / "started")
    description = json.loads((started / "run.json").read_text(encoding="utf-8"))
    description["experiment"]["init"] = {"corpus": ["elsewhere"], "init": None}
    (started / "run.json").write_text(json.dumps(description), encoding="utf-8")
    write_sums(started, kept_files(started))
    other = elsewhere(manifest, tmp_path / "elsewhere.parquet")
    metrics = evaluate_run(EvaluateRequest(started, other), tmp_path / "out")
    assert set(metrics["shared"].values()) == {"not known"}
    assert "started from a model that was trained on elsewhere" in " ".join(
        metrics["protocol"]["notes"]
    )
    metrics = evaluate_run(EvaluateRequest(run, other), tmp_path / "unstarted")
    assert metrics["shared"]["utterances"] == "none"


@pytest.fixture
def spoken(work, whisper_folder, text_folder, tmp_path):
    """A run whose Whisper and text model were moved after it, and where they are now."""
    places = {"whisper": tmp_path / "whisper", "text_model": tmp_path / "text"}
    shutil.copytree(whisper_folder, places["whisper"])
    shutil.copytree(text_folder(), places["text_model"])
    whisper = [f"whisper.{key}={value}" for key, value in CREDULOUS.items()]
    quick = ("train.epochs=1", "fusion.width=8", "fusion.hidden=[8, 8]", "speeds=[]")
    request = TrainRequest(
        "multimodal",
        "speaker",
        manifest=work / "m.parquet",
        whisper=str(places["whisper"]),
        text_model=str(places["text_model"]),
        overrides=(*whisper, *quick),
    )
    run_experiment(request.resolve(), tmp_path / "spoken", store_root=tmp_path / "store")
    now = {name: place.with_name(f"{place.name}-now") for name, place in places.items()}
    for name, place in places.items():
        place.rename(now[name])
    return tmp_path / "spoken", {name: str(place) for name, place in now.items()}


def test_moved_models_are_found_and_nothing_is_transcribed_twice(
    spoken, run, manifest, tmp_path, monkeypatch
):
    folder, places = spoken
    other = elsewhere(manifest, tmp_path / "o.parquet")
    with pytest.raises(EncoderError, match="--text-model"):
        evaluate_run(EvaluateRequest(folder, other), tmp_path / "lost")
    stores = {"store_root": tmp_path / "store"}
    asked = EvaluateRequest(folder, other, places=places)
    first = evaluate_run(asked, tmp_path / "first", **stores)
    hears = Transcriber.transcribe
    # What costs time is measured as it is, by a model that keeps nothing.
    monkeypatch.setattr(other_data, "measure_model", lambda *_, **__: first["cost"])
    monkeypatch.setattr(Transcriber, "transcribe", pytest.fail)
    again = evaluate_run(asked, tmp_path / "again", **stores)
    assert again["nll"] == first["nll"]
    # The other run of the matrix has neither.
    matrix = evaluate_matrix([folder, run], [other], places=places, **stores)
    assert matrix["cells"][0]["uar"] == first["uar"]
    with pytest.raises(ConfigError, match="that --encoder is about"):
        evaluate_matrix([run], [other], places={"encoder": "x"}, **stores)
    monkeypatch.setattr(Transcriber, "transcribe", hears)
    (tmp_path / "store" / CACHE_NAME).unlink()
    assert evaluate_run(asked, tmp_path / "anew", **stores)["nll"] == first["nll"]
