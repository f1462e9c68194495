import json
import logging
import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import sklearn.metrics
from PIL import Image

from fixtures.sound import write_tones
from koser.data.corpora.folder import prepare
from koser.data.manifest import Manifest
from koser.data.splits import Split, SplitOptions
from koser.errors import ConfigError, RunError
from koser.experiment import members
from koser.experiment.request import TrainRequest, choose_folder, resolve_split
from koser.experiment.run import Listeners, run_experiment
from koser.inference.recognizer import load_recognizer
from koser.models.checkpoint import load_tensors, save_tensors
from koser.reporting import canvas
from koser.systems.mfcc import MfccConfig, MfccSystem

LABELS = ["angry", "neutral", "sadness"]
QUICK = ("train.epochs=3", "train.batch_size=8", "cnn.channels=[4, 6]", "cnn.hidden_size=8")


@pytest.fixture
def manifest_file(tone_corpus, tmp_path):
    prepare(tone_corpus(), speaker_pattern=r"(s\d)_").write(tmp_path / "m.parquet")
    return tmp_path / "m.parquet"


def train(manifest_file, folder, *, split="speaker", n_seeds=1, **options):
    request = TrainRequest("mfcc", split, manifest=manifest_file, overrides=QUICK, n_seeds=n_seeds)
    store = folder.parent / "store"
    return run_experiment(request.resolve(), folder, store_root=store, **options)


@pytest.fixture
def run(tmp_path, manifest_file):
    """Train what a test asks for, by default in ``run``."""

    def run_it(folder="run", **options):
        return train(manifest_file, tmp_path / folder, **options)

    return run_it


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run; nothing may be changed in it."""
    root = tmp_path_factory.mktemp("trained")
    tones = write_tones(root / "tones")
    prepare(tones, speaker_pattern=r"(s\d)_").write(root / "m.parquet")
    return train(root / "m.parquet", root / "run")


@pytest.fixture
def folder(trained, tmp_path):
    """The same run where `run` leaves its own."""
    shutil.copytree(trained.folder, tmp_path / "run")
    return tmp_path / "run"


def predictions(folder):
    return pl.read_parquet(folder / "predictions.parquet")


def test_a_run_leaves_the_documents_files_and_ours(trained):
    folder = trained.folder
    assert {path.name for path in folder.iterdir()} == {
        "best_model_mfcc.pth",
        "training_history_mfcc_speaker.png",
        "confusion_matrix_mfcc_speaker.png",
        "results_mfcc_speaker.json",
        "config.toml",
        "run.json",
        "split.parquet",
        "predictions.parquet",
        "metrics.json",
        "audit.json",
        "history.json",
        "data.json",
        "README.md",
        "SHA256SUMS",
        "report.html",
        "train.log",
        "parts",
    }
    for plot in folder.glob("*.png"):
        with Image.open(plot) as image:
            assert image.width > 6.7 * canvas.DPI  # inches


def test_results_have_the_documents_keys_in_its_units(trained):
    results = json.loads((trained.folder / "results_mfcc_speaker.json").read_text("utf-8"))
    table = predictions(trained.folder)
    accuracy = (table["label"] == table["predicted"]).mean()
    assert results["model"] == "mfcc"
    assert results["split"] == "speaker"
    assert results["test_accuracy"] == pytest.approx(100 * accuracy, abs=1e-3)
    expected_loss = sklearn.metrics.log_loss(
        table["label"],
        table.select(pl.col("^p_.*$")).to_numpy(),
        labels=["angry", "neutral", "sadness"],
    )
    assert results["test_loss"] == pytest.approx(expected_loss)
    assert 0 <= results["best_val_accuracy"] <= 100
    assert results["num_classes"] == 3
    assert results["emotion_mapping"] == {"angry": 0, "neutral": 1, "sadness": 2}
    split = Split.read(trained.folder / "split.parquet")
    sizes = [len(split.ids(0, part)) for part in ("train", "val", "test")]
    assert [results[key] for key in ("num_train", "num_val", "num_test")] == sizes


def test_scores_carry_what_they_rest_on_and_agree_with_scikit_learn(trained):
    metrics = json.loads((trained.folder / "metrics.json").read_text("utf-8"))
    table = predictions(trained.folder)
    y_true, y_pred = table["label"], table["predicted"]
    assert metrics["uar"] == pytest.approx(sklearn.metrics.balanced_accuracy_score(y_true, y_pred))
    assert metrics["macro_f1"] == pytest.approx(
        sklearn.metrics.f1_score(y_true, y_pred, average="macro")
    )
    # Both test speakers may score alike, which says nothing of others; NLL never is so even.
    for name in ("uar", "nll"):
        bounds = metrics["ci95"][name]
        assert bounds is not None or any("No interval of" in note for note in metrics["notes"])
        assert bounds is None or bounds[0] <= metrics[name] <= bounds[1]
    assert metrics["ci95"]["nll"] is not None
    assert metrics["protocol"]["protocol"] == "speaker"
    assert metrics["protocol"]["hash"] == Split.read(trained.folder / "split.parquet").hash
    assert (metrics["n"], metrics["n_speakers"], metrics["seeds"]) == (12, 2, [42])
    assert metrics["chance_uar"] == pytest.approx(1 / 3)
    assert metrics["majority_accuracy"] == pytest.approx(1 / 3)


def test_the_kept_model_is_the_one_that_was_tested(trained):
    """The best weights are restored before test, saved, and used in prediction."""
    table = predictions(trained.folder)
    manifest = trained.experiment.manifest.table
    recognizer = load_recognizer(trained.folder)
    for row in table.iter_rows(named=True):
        path = manifest.filter(id=row["id"])["path"][0]
        probabilities = recognizer.predict_file(path).probabilities
        for label, probability in probabilities.items():
            assert probability == pytest.approx(row[f"p_{label}"], abs=1e-5)


@pytest.fixture(scope="module")
def left_out(trained):
    """A finished run that leaves every speaker out once; nothing may be changed in it."""
    root = trained.folder.parent
    return train(root / "m.parquet", root / "left_out", split="leave_one_speaker_out")


def test_a_run_is_reproduced_exactly_whatever_the_number_of_workers(run, left_out):
    two = run("two", split="leave_one_speaker_out", n_workers=2)
    assert predictions(left_out.folder).drop("path").equals(predictions(two.folder).drop("path"))


def test_cross_validation_tests_every_utterance_once_under_each_seed(run):
    finished = run(split="leave_one_speaker_out", n_seeds=2)
    table = predictions(finished.folder)
    manifest = finished.experiment.manifest.table
    for seed in (42, 43):
        assert sorted(table.filter(seed=seed)["id"]) == sorted(manifest["id"])
    metrics = finished.metrics
    assert (metrics["n"], metrics["n_speakers"], len(metrics["folds"])) == (36, 6, 12)
    per_seed = [
        sklearn.metrics.balanced_accuracy_score(part["label"], part["predicted"])
        for part in (table.filter(seed=42), table.filter(seed=43))
    ]
    assert metrics["uar"] == pytest.approx(np.mean(per_seed))
    assert metrics["over_seeds"]["uar"]["mean"] == pytest.approx(np.mean(per_seed))
    assert metrics["over_seeds"]["uar"]["sd"] == pytest.approx(np.std(per_seed, ddof=1))
    assert metrics["folds"][0]["uar"] is not None
    assert any("36 utterances was tested 2 times" in note for note in metrics["notes"])


class KilledError(Exception):
    pass


def test_a_run_that_was_killed_resumes_to_the_same_result(run, left_out, monkeypatch):
    # Every epoch is kept, however short: none may be repeated.
    monkeypatch.setattr("koser.training.progress._MAX_SAVING_SHARE", float("inf"))
    n_epochs = 0

    def kill(_member, _record):
        nonlocal n_epochs
        n_epochs += 1
        if n_epochs == 8:  # in the third of six folds
            raise KilledError

    with pytest.raises(KilledError):
        run("killed", split="leave_one_speaker_out", listeners=Listeners(on_epoch=kill))
    trained = []
    again = run(
        "killed",
        split="leave_one_speaker_out",
        resume=True,
        listeners=Listeners(on_epoch=lambda member, record: trained.append(record)),
    )
    assert len(trained) == 6 * 3 - 8, "finished epochs were repeated"
    assert predictions(again.folder).drop("path").equals(predictions(left_out.folder).drop("path"))
    for name in ("accuracy", "uar", "nll", "ci95", "confusion"):
        assert again.metrics[name] == left_out.metrics[name]


def test_a_taken_folder_and_another_runs_folder_are_refused(run, folder):
    with pytest.raises(RunError, match=r"is not empty.*--resume.*--out"):
        run("run")
    with pytest.raises(RunError, match=r"holds another run \(different: split\)"):
        run("run", split="random", resume=True)


def test_a_split_of_other_utterances_is_refused(run, tmp_path, tone_corpus):
    finished = run("run")
    kept = finished.folder / "split.parquet"
    prepare(tone_corpus(n_speakers=7), speaker_pattern=r"(s\d)_").write(tmp_path / "m.parquet")
    with pytest.raises(ValueError, match="utterances"):
        run("other", split=str(kept))


def test_without_speakers_there_are_scores_but_no_intervals(run, tmp_path, tone_corpus):
    prepare(tone_corpus()).write(tmp_path / "m.parquet")
    metrics = run(split="random").metrics
    assert metrics["uar"] is not None
    assert metrics["ci95"]["uar"] is None
    assert any("No intervals" in note for note in metrics["notes"])


def test_the_report_needs_nothing_but_itself_and_says_what_it_shows(trained):
    folder = trained.folder
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert "http" not in html.replace("http-equiv", "")
    assert html.count("<svg") >= 3  # recalls, and loss and accuracy over the epochs
    metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
    assert f"{metrics['uar']:.3f}" in html
    for text in ("분할 speaker · n = 12 · 화자 2명", metrics["protocol"]["hash"], "슬픔"):
        assert text in html
    assert "SYNTHETIC" not in html


def test_what_a_system_says_of_its_features_is_kept_and_reported(run, monkeypatch):
    facts = {"encoder": {"name": "a/<b>", "revision": None, "fingerprint": "0f3a"}, "n_cached": 7}
    monkeypatch.setattr(MfccSystem, "describe_data", classmethod(lambda cls, data: facts))
    finished = run()
    assert finished.metrics["features"] == facts
    results = json.loads((finished.folder / "results_mfcc_speaker.json").read_text("utf-8"))
    assert results["features"] == facts
    html = (finished.folder / "report.html").read_text(encoding="utf-8")
    for name, value in (
        ("음성 인코더.name", "a/&lt;b&gt;"),
        ("음성 인코더.revision", "–"),
        ("음성 인코더.가중치 지문", "0f3a"),
        ("n_cached", "7"),
    ):
        assert f'<tr><th scope="row">{name}</th><td>{value}</td></tr>' in html


def test_most_systems_say_nothing_of_their_features(trained):
    assert trained.metrics["features"] == {}


def test_what_a_training_warns_of_comes_with_its_outcome(run, monkeypatch):
    fit = MfccSystem.fit

    def warned(*args, **kwargs):
        for _ in range(2):
            logging.getLogger("koser.systems").warning("a %s", "note")
        return fit(*args, **kwargs)

    monkeypatch.setattr(MfccSystem, "fit", warned)
    (outcome,) = run().results.outcomes
    assert outcome.notes == ("a note",)


def test_warnings_from_other_processes_are_passed_on_once(trained, monkeypatch, caplog, tmp_path):
    """As a worker process would return them; its own logging is not heard here."""
    (outcome,) = trained.results.outcomes
    work = members.MemberWork("mfcc", (), MfccConfig(), None, tmp_path, {}, np.zeros(0, int))
    noted = [replace(outcome, notes=notes) for notes in (("a",), ("a", "b"), ())]
    monkeypatch.setattr(members, "iter_map", lambda *args, **kwargs: iter(noted))
    caplog.clear()
    members.run_members(work, [outcome.member] * 3, n_workers=2)
    assert [record.getMessage() for record in caplog.records] == ["a", "b"]
    caplog.clear()
    members.run_members(work, [outcome.member] * 3, n_workers=1)
    assert not caplog.records


def test_trainings_at_once_are_told_their_share_of_the_memory(trained, monkeypatch, tmp_path):
    (outcome,) = trained.results.outcomes
    work = members.MemberWork("mfcc", (), MfccConfig(), None, tmp_path, {}, np.zeros(0, int))
    told = []

    def noted(factory, items, **how):
        told.append(factory().make_system(MfccConfig()).memory_share)
        return iter([outcome] * len(items))

    monkeypatch.setattr(members, "iter_map", noted)
    monkeypatch.setattr(members, "free_memory", lambda: 9 * 10**9)
    for n_workers in (3, 8, 1):
        members.run_members(work, [outcome.member] * 4, n_workers=n_workers)
    monkeypatch.setattr(members, "free_memory", lambda: None)
    members.run_members(work, [outcome.member] * 4, n_workers=2)
    # One alone looks for itself, when it begins.
    assert told == [3 * 10**9, 9 * 10**9 // 4, None, None]


def test_a_run_leaves_logging_as_it_was(run):
    before = logging.getLogger("koser").handlers[:], logging.getLogger("koser").level
    folder = run().folder
    assert (logging.getLogger("koser").handlers, logging.getLogger("koser").level) == before
    assert "epoch" in (folder / "train.log").read_text(encoding="utf-8")


def test_a_request_needs_exactly_one_source(manifest_file, tmp_path):
    with pytest.raises(ConfigError, match="either --manifest"):
        TrainRequest("mfcc", "random").resolve()
    with pytest.raises(ConfigError, match="either --manifest"):
        TrainRequest("mfcc", "random", manifest=manifest_file, data=tmp_path).resolve()
    with pytest.raises(ConfigError, match="--seeds 0"):
        TrainRequest("mfcc", "random", manifest=manifest_file, n_seeds=0).resolve()


def test_resuming_finds_the_newest_unfinished_run(manifest_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    experiment = TrainRequest("mfcc", "speaker", manifest=manifest_file).resolve()
    with pytest.raises(RunError, match="No unfinished run"):
        choose_folder(experiment, None, resume=True)
    for name, files in {
        "a": ["run.json"],
        "b": ["run.json", "metrics.json"],  # killed while it drew
        "c": ["run.json", "metrics.json", "report.html"],
    }.items():
        folder = tmp_path / "runs" / f"mfcc_speaker_{name}"
        folder.mkdir(parents=True)
        for file in files:
            (folder / file).touch()
    assert choose_folder(experiment, None, resume=True).name == "mfcc_speaker_b"
    assert choose_folder(experiment, tmp_path / "x", resume=True) == tmp_path / "x"
    assert choose_folder(experiment, None, resume=False).name.startswith("mfcc_speaker_2")


@pytest.fixture
def without(manifest_file, tmp_path):
    """Drop rows from the manifest; returns a fixed split that tests speaker s0."""

    def drop(is_dropped):
        manifest = Manifest.read(manifest_file)
        table = manifest.table.filter(~is_dropped)
        n_rows_in = manifest.provenance.n_rows_in - len(manifest) + len(table)
        Manifest(table, replace(manifest.provenance, n_rows_in=n_rows_in)).write(manifest_file)
        parts = ["test", "val", "train", "train", "train", "train"]
        listed = pl.DataFrame({"speaker": [f"s{i}" for i in range(6)], "part": parts})
        listed.write_csv(tmp_path / "list.csv")
        return f"fixed:{tmp_path / 'list.csv'}"

    return drop


def test_a_label_that_a_fold_cannot_learn_keeps_its_column(run, without):
    split = without((pl.col("label") == "sadness") & (pl.col("speaker") != "s0"))
    finished = run(split=split)
    probabilities = predictions(finished.folder).select(pl.col("^p_.*$"))
    assert probabilities.columns == ["p_angry", "p_neutral", "p_sadness"]
    np.testing.assert_allclose(probabilities.to_numpy().sum(axis=1), 1)
    assert finished.metrics["recall"]["sadness"] is not None


def test_a_label_that_is_not_tested_has_no_recall_and_a_note(run, without):
    split = without((pl.col("label") == "sadness") & (pl.col("speaker") == "s0"))
    metrics = run(split=split).metrics
    assert metrics["recall"]["sadness"] is None
    assert metrics["labels_absent"] == ["sadness"]
    assert any("UAR over 2 of 3 labels" in note for note in metrics["notes"])
    assert metrics["chance_uar"] == pytest.approx(1 / 2)


def test_a_list_in_a_parquet_file_is_not_taken_for_a_kept_split(manifest_file, tmp_path):
    parts = ["test", "val", "train", "train", "train", "train"]
    listed = pl.DataFrame({"speaker": [f"s{i}" for i in range(6)], "part": parts})
    listed.write_parquet(tmp_path / "list.parquet")
    manifest = Manifest.read(manifest_file)
    split = resolve_split(manifest, f"fixed:{tmp_path / 'list.parquet'}", SplitOptions())
    assert len(split.ids(0, "test")) == 6


def test_a_finished_training_on_another_encoder_is_not_taken_over(run, folder, monkeypatch):
    (folder / "report.html").unlink()
    monkeypatch.setattr(
        MfccSystem, "describe_data", classmethod(lambda cls, data: {"fingerprint": "other"})
    )
    with pytest.raises(RunError, match=r"trained on other features .*another folder"):
        run(resume=True)


def test_a_kill_between_an_outcome_and_its_tidying_leaves_nothing_in_the_end(run, folder):
    (training,) = (folder / "parts").iterdir()
    (folder / "report.html").unlink()
    (training / "last.pth").write_bytes(b"what a killed process did not remove")
    run(resume=True)
    assert not (training / "last.pth").exists()
    assert (folder / "report.html").exists()


def change_manifest(file, **columns):
    manifest = Manifest.read(file)
    Manifest(manifest.table.with_columns(**columns), manifest.provenance).write(file)


SWAPPED = pl.col("label").replace({"angry": "sadness", "sadness": "angry"})


@pytest.mark.parametrize("is_old", [False, True])
def test_a_finished_training_on_other_labels_is_not_taken_over(run, folder, manifest_file, is_old):
    (folder / "report.html").unlink()
    if is_old:  # of a koser that did not keep what it was taught
        (outcome,) = folder.glob("parts/*/outcome.pth")
        values = load_tensors(outcome)
        del values["taught"]
        save_tensors(values, outcome)
        run(resume=True)
        return
    change_manifest(manifest_file, label=SWAPPED)
    with pytest.raises(RunError, match=r"trained on other labels or sound.*another folder"):
        run(resume=True)


def test_a_finished_training_on_other_sound_is_not_taken_over(run, folder, manifest_file):
    (folder / "report.html").unlink()
    change_manifest(manifest_file, path=pl.col("path").reverse())
    with pytest.raises(RunError, match="trained on other labels or sound"):
        run(resume=True)
