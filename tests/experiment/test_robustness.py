"""A run on degraded sound: whose model hears what, and what is said of it."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import sklearn.metrics
import soundfile

from fixtures.text import CREDULOUS
from koser.audio.degradation import Degradation, degrade, draw_at, list_degradations
from koser.audio.reading import load
from koser.data.assignment import TRAIN
from koser.data.corpora.folder import prepare
from koser.data.manifest import Manifest
from koser.data.splits import Split, SplitOptions
from koser.errors import ConfigError, RunError, SplitError
from koser.experiment import degrading
from koser.experiment.request import TrainRequest
from koser.experiment.robustness import RobustnessRequest, measure_robustness
from koser.experiment.run import run_experiment
from koser.features.text.cache import CACHE_NAME
from koser.features.text.transcriber import Transcriber
from koser.inference.recognizer import load_recognizer

QUICK = ("train.epochs=6", "train.batch_size=8", "cnn.channels=[4, 6]", "cnn.hidden_size=8")
KINDS = ("noise", "babble", "g711a", "speed")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with ``m.parquet``, tones of six speakers, and a run of 3 folds and 2 seeds."""
    folder, rng = tmp_path_factory.mktemp("work"), np.random.default_rng(0)
    for label, pitch in {"angry": 900.0, "neutral": 300.0, "sadness": 120.0}.items():
        (folder / "tones" / label).mkdir(parents=True)
        for speaker in range(6):
            times = np.arange(round(16_000 * rng.uniform(0.2, 0.3))) / 16_000
            sound = 0.3 * np.sin(2 * np.pi * pitch * times) + 0.05 * rng.standard_normal(len(times))
            soundfile.write(folder / "tones" / label / f"s{speaker}_0.wav", sound, 16_000)
    prepare(folder / "tones", speaker_pattern=r"(s\d)_").write(folder / "m.parquet")
    request = TrainRequest(
        "mfcc",
        "kfold",
        manifest=folder / "m.parquet",
        split_options=SplitOptions(n_folds=3),
        overrides=QUICK,
        n_seeds=2,
    )
    run_experiment(request.resolve(), folder / "run", store_root=folder / "store")
    return folder


def ask(work, *kinds, manifest=None, seed=0):
    manifests = (manifest or work / "m.parquet",)
    return RobustnessRequest(work / "run", manifests, kinds or KINDS, seed, {})


def measure(request, out, **how):
    return measure_robustness(request, out, store_root=out.parent / "heard", **how)


@pytest.fixture(scope="module")
def measured(work):
    before = {path: path.stat().st_mtime_ns for path in (work / "store").rglob("*")}
    values = measure(ask(work), work / "out")
    assert {path: path.stat().st_mtime_ns for path in (work / "store").rglob("*")} == before
    return values


def test_every_utterance_is_heard_by_the_model_that_has_not_learnt_from_it(work, measured):
    table = pl.read_parquet(work / "out" / "robustness.parquet")
    manifest = Manifest.read(work / "m.parquet")
    parts = Split.read(work / "run" / "split.parquet").parts(manifest)
    rows = table.filter(pl.col("kind").is_in(["noise", "babble"]), pl.col("level") == 5.0)
    assert rows.height == 2 * len(manifest) * 2
    for row in rows.gather_every(9).iter_rows(named=True):
        place = manifest.table["id"].to_list().index(row["id"])
        train = np.flatnonzero(parts[row["fold"]] == TRAIN)
        assert place not in train
        rng = draw_at(0, row["kind"], row["id"])
        talkers = []
        if row["kind"] == "babble":
            chosen = rng.choice(train, size=min(6, len(train)), replace=False)
            talkers = [load(manifest.table["path"][int(other)]) for other in chosen]
        sound = degrade(load(row["path"]), Degradation(row["kind"], 5.0), rng, talkers)
        name = f"seed{row['seed']}-fold{row['fold']:02d}"
        recognizer = load_recognizer(work / "run" / "parts" / name)
        expected = recognizer.predict_waveforms([sound])[0]
        found = [row[f"p_{label}"] for label in recognizer.labels]
        np.testing.assert_allclose(found, expected, atol=1e-5)  # other neighbours in a batch


def test_clean_scores_are_the_runs_own_and_others_are_scikit_learns(work, measured):
    metrics = json.loads((work / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert measured["clean"]["uar"] == pytest.approx(metrics["uar"], abs=1e-12)
    assert measured["clean"]["ci95"]["uar"] == pytest.approx(metrics["ci95"]["uar"], abs=1e-12)
    assert measured["largest_difference"] < 1e-4
    table = pl.read_parquet(work / "out" / "robustness.parquet")
    assert len(measured["conditions"]) == len(list_degradations(KINDS)) == 15
    for each in measured["conditions"]:
        rows = table.filter(kind=each["kind"], level=each["level"])
        assert rows.height == 2 * measured["n"]
        recall = sklearn.metrics.balanced_accuracy_score(rows["label"], rows["predicted"])
        assert each["uar"] == pytest.approx(recall)
        difference = each["uar"] - measured["clean"]["uar"]
        assert each["difference"]["uar"] == pytest.approx(difference)
        if each["difference"]["ci95"] is None:
            is_right = (rows["label"] == rows["predicted"]).alias("right")
            of_speaker = rows.with_columns(is_right).group_by("id").agg(pl.col("right").mean())
            of_speaker = of_speaker.group_by(pl.col("id").str.extract(r"(s\d)_")).agg("right")
            assert of_speaker["right"].list.sum().round(9).n_unique() == 1
        else:
            low, high = each["difference"]["ci95"]
            assert low < difference < high
        assert each["difference"]["p_holm"] >= each["difference"]["p"]
    assert len({each["uar"] for each in measured["conditions"]}) > 1


def test_the_same_again_and_in_several_processes_and_in_part_gives_the_same(
    work, measured, tmp_path
):
    again = measure(ask(work), tmp_path / "again", n_workers=2)
    assert again == measured
    alone = measure(ask(work, "noise"), tmp_path / "alone")
    scores = [[each["uar"], each["ci95"]] for each in alone["conditions"]]
    assert scores == [[each["uar"], each["ci95"]] for each in measured["conditions"][:5]]
    other = measure(ask(work, "noise", seed=1), tmp_path / "other")
    tables = [
        pl.read_parquet(tmp_path / name / "robustness.parquet") for name in ("alone", "other")
    ]
    assert not tables[0].equals(tables[1])
    assert other["seed"] == 1


def test_killed_it_goes_on_after_the_trainings_that_were_done(
    work, measured, tmp_path, monkeypatch
):
    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(ask(work), tmp_path / "out", on_training=stop)
    assert not (tmp_path / "out" / "robustness.json").exists()
    loaded = []

    def noted(path, **places):
        loaded.append(Path(path).parent.name)
        return load_recognizer(path, **places)

    monkeypatch.setattr(degrading, "load_recognizer", noted)
    assert measure(ask(work), tmp_path / "out") == measured
    assert len(loaded) == 4
    assert len(set(loaded)) == 4
    assert not (tmp_path / "out" / ".robustness").exists()


def test_answers_that_were_kept_to_another_question_are_not_taken(work, measured, tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(ask(work, "noise", seed=3), tmp_path / "out", on_training=stop)
    found = measure(ask(work, "noise"), tmp_path / "out")["conditions"]
    assert [each["uar"] for each in found] == [each["uar"] for each in measured["conditions"][:5]]


def test_sound_that_has_changed_since_is_refused(work, tmp_path):
    shutil.copytree(work / "tones", tmp_path / "tones")
    for path in (tmp_path / "tones" / "angry").glob("*.wav"):
        shutil.copy(tmp_path / "tones" / "sadness" / "s0_0.wav", path)
    prepare(tmp_path / "tones", speaker_pattern=r"(s\d)_").write(tmp_path / "m.parquet")
    with pytest.raises(RunError, match="the models do not say what the run says: for 'angry/"):
        measure(ask(work, manifest=tmp_path / "m.parquet"), tmp_path / "out")
    assert not (tmp_path / "out" / "robustness.json").exists()


def test_another_corpus_an_unknown_kind_and_a_run_without_its_models_are_refused(work, tmp_path):
    shutil.copytree(work / "tones", tmp_path / "tones")
    (tmp_path / "tones" / "angry" / "s0_0.wav").unlink()
    prepare(tmp_path / "tones", speaker_pattern=r"(s\d)_").write(tmp_path / "less.parquet")
    with pytest.raises(SplitError, match="does not belong to the manifest"):
        measure(ask(work, manifest=tmp_path / "less.parquet"), tmp_path / "out")
    with pytest.raises(ConfigError, match="No degradation is called 'rain'"):
        measure(ask(work, "rain"), tmp_path / "out")
    shutil.copytree(work / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "parts" / "seed42-fold01")
    lacking = RobustnessRequest(tmp_path / "run", (work / "m.parquet",), KINDS, 0, {})
    with pytest.raises(RunError, match="lacks the models of 1 of its 6 trainings"):
        measure(lacking, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_whisper_heard_is_heard_once_by_all_runs_with_the_same_split(
    work, whisper_folder, text_folder, tmp_path, monkeypatch
):
    for name, decay in {"first": 1e-3, "second": 1e-2}.items():
        whisper = [f"whisper.{key}={value}" for key, value in CREDULOUS.items()]
        quick = ("train.epochs=1", "fusion.width=8", "fusion.hidden=[8, 8]", "speeds=[]")
        request = TrainRequest(
            "multimodal",
            "kfold",
            manifest=work / "m.parquet",
            split_options=SplitOptions(n_folds=2),
            whisper=str(whisper_folder),
            text_model=str(text_folder()),
            overrides=(*whisper, *quick, f"train.weight_decay={decay}"),
        )
        run_experiment(request.resolve(), tmp_path / name, store_root=tmp_path / "store")

    def measured_on(name):
        asked = RobustnessRequest(tmp_path / name, (work / "m.parquet",), ("g711a",), 0, {})
        return measure_robustness(asked, tmp_path / name, store_root=tmp_path / "store")

    counts, transcribe = [], Transcriber.transcribe

    def counted(self, waveforms):
        counts.append(len(waveforms))
        return transcribe(self, waveforms)

    with monkeypatch.context() as patch:
        patch.setattr(Transcriber, "transcribe", counted)
        first = measured_on("first")
    assert sum(counts) == first["n"]  # under one degradation; training has heard the clean sound
    with monkeypatch.context() as patch:
        patch.setattr(Transcriber, "transcribe", pytest.fail)  # the second hears nothing new
        assert measured_on("second")["run"] == "second"
        assert measured_on("first") == first
    (tmp_path / "store" / CACHE_NAME).unlink()
    assert measured_on("first") == first


@pytest.mark.parametrize(
    ("language", "heading", "condition"),
    [("en", "When the sound gets worse", "babble, 20 dB SNR"),
     ("ko", "음질이 나빠지면", "배경 말소리, 20 dB SNR")],
)  # fmt: skip
def test_the_command_leaves_table_curves_and_report(
    work, koser, tmp_path, language, heading, condition
):
    shutil.copytree(work / "run", tmp_path / "run")
    status, printed, _ = koser(
        "robustness", "run", "--manifest", work / "m.parquet", "--only", "babble", "--workers", 1,
        "--report-language", language, "--quiet",
    )  # fmt: skip
    assert status == 0
    assert "speakers, seeds 42, 43" in " ".join(printed.split())
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert heading in report
    assert condition in report
    assert (tmp_path / "run" / "robustness.png").read_bytes().startswith(b"\x89PNG")
    # The folder is still whole, and its report without the file is without the section.
    assert koser("doctor", "run")[0] == 0
    (tmp_path / "run" / "robustness.json").unlink()
    koser("report", "run", "--report-language", language)
    assert heading not in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_a_note_stands_with_its_condition(measured):
    """Of conditions beside each other some change no answer, some those of a few speakers."""
    for each in measured["conditions"]:
        has_interval = each["difference"]["ci95"] is not None
        said = [note for note in each["notes"] if note.startswith("No interval of UAR")]
        assert len(said) == (not has_interval)
    named = [note for each in measured["conditions"] for note in each["notes"]]
    assert named
    assert not set(named) & set(measured["notes"])
