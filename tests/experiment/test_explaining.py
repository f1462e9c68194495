"""A run's worst mistakes explained by the trainings that made them, and how the report shows it."""

import json
import re
import shutil

import numpy as np
import polars as pl
import pytest
import soundfile

from koser.audio.reading import Clip, load_clip
from koser.data.corpora.folder import prepare
from koser.errors import RunError
from koser.experiment.explaining import explain_mistakes
from koser.experiment.outputs import kept_files
from koser.experiment.request import TrainRequest
from koser.experiment.robustness import RobustnessRequest, measure_robustness
from koser.experiment.run import run_experiment
from koser.hashes import write_sums
from koser.inference.explanation import explain
from koser.inference.recognizer import load_recognizer
from koser.reporting.report import ReportOptions, write_report

QUICK = ("train.epochs=2", "train.batch_size=8", "cnn.channels=[4, 6]", "cnn.hidden_size=8")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A cross-validation of four speakers whose labels nothing tells, so mistakes are sure."""
    folder, rng = tmp_path_factory.mktemp("work"), np.random.default_rng(0)
    for label in ("angry", "neutral", "sadness"):
        (folder / "noise" / label).mkdir(parents=True)
        for number in range(8):
            path = folder / "noise" / label / f"s{number % 4}_{number}.wav"
            soundfile.write(path, rng.normal(0, 0.1, 9_600), 16_000, "PCM_16")
    prepare(folder / "noise", speaker_pattern=r"(s\d)_").write(folder / "m.parquet")
    request = TrainRequest(
        "mfcc", "leave_one_speaker_out", manifest=folder / "m.parquet", overrides=QUICK
    )
    run_experiment(request.resolve(), folder / "run", store_root=folder / "store")
    return folder / "run"


def test_each_mistake_is_explained_by_the_training_that_made_it(run, tmp_path):
    copied = shutil.copytree(run, tmp_path / "run")
    found = json.loads(explain_mistakes(copied, 5).read_text(encoding="utf-8"))
    table = pl.read_parquet(run / "predictions.parquet")
    p = table.select(pl.col("^p_.*$")).to_numpy()
    is_wrong = (table["label"] != table["predicted"]).to_numpy()
    order = np.lexsort((table["id"].to_numpy(), -p.max(axis=1)))
    assert list(found) == [table["id"][int(i)] for i in order if is_wrong[i]][:5]
    assert len({row["fold"] for row in table.iter_rows(named=True) if row["id"] in found}) > 1
    for row in table.filter(pl.col("id").is_in(list(found))).iter_rows(named=True):
        explained = found[row["id"]]
        assert explained["label"] == row["predicted"]
        # Whose model it was: its answer to the sound is the one in the table.
        model = load_recognizer(run / "parts" / f"seed{row['seed']}-fold{row['fold']:02d}")
        waveform = load_clip(Clip(row["path"], row["start"], row["end"], row["channel"]))
        whole = model.predict_waveforms([waveform])[0]
        best = int(whole.argmax())
        assert whole[best] == pytest.approx(row[f"p_{row['predicted']}"], abs=1e-4)
        assert len(explained["cells"]) == 6  # of 0.1 s in 0.6 s
        evidence = [cell.evidence for cell in explain(model, waveform).cells]
        assert [cell["evidence"] for cell in explained["cells"]] == pytest.approx(evidence)
        assert max(explained["outline"]) == pytest.approx(np.abs(waveform).max(), abs=1e-3)


def test_the_report_shows_what_was_explained(run, tmp_path):
    copied = shutil.copytree(run, tmp_path / "run")
    ids = list(json.loads(explain_mistakes(copied, 2).read_text(encoding="utf-8")))
    values = json.loads((copied / "explanations.json").read_text(encoding="utf-8"))
    values[ids[0]]["words"] = [
        {"text": "정말", "evidence": 1.2}, {"text": "<b>", "evidence": -0.3}
    ]  # fmt: skip
    values["gone"] = {"why_not": "'gone.wav' does not exist."}
    (copied / "explanations.json").write_text(json.dumps(values), encoding="utf-8")
    page = write_report(copied, ReportOptions("en")).read_text(encoding="utf-8")
    section = page[page.index("What these answers rest on") : page.index('id="cost"')]
    # A bar for each moment, up for evidence that speaks for the answer.
    cells = [cell for name in ids for cell in values[name]["cells"]]
    bars = re.findall(r'class="bar (first|second)"', section)
    assert bars == ["first" if cell["evidence"] >= 0 else "second" for cell in cells]
    assert '<li class="for level4">정말<small>+1.20</small></li>' in section
    assert '<li class="against level1">&lt;b&gt;<small>-0.30</small></li>' in section
    assert "&#39;gone.wav&#39; does not exist." in section
    without = write_report(run, ReportOptions("en"), path=tmp_path / "plain.html")
    assert "What these answers rest on" not in without.read_text(encoding="utf-8")


def test_sound_that_is_gone_is_said_of_its_mistake_alone(run, tmp_path):
    copied = shutil.copytree(run, tmp_path / "run")
    table = pl.read_parquet(copied / "predictions.parquet")
    first = next(iter(json.loads(explain_mistakes(copied, 1).read_text(encoding="utf-8"))))
    moved = pl.when(pl.col("id") == first).then(pl.lit("/nowhere/a.wav")).otherwise(pl.col("path"))
    (copied / "SHA256SUMS").unlink()
    table.with_columns(path=moved).write_parquet(copied / "predictions.parquet")
    found = json.loads(explain_mistakes(copied, 2).read_text(encoding="utf-8"))
    assert "/nowhere/a.wav" in found[first]["why_not"]
    assert "cells" in found[list(found)[1]]


def test_a_run_without_its_trainings_is_refused(run, tmp_path):
    copied = shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(copied / "parts")
    with pytest.raises(RunError, match="without its parts/"):
        explain_mistakes(copied, 1)
    assert not (copied / "explanations.json").exists()


def test_models_that_have_heard_the_tested_persons_first_are_not_asked_without(run, tmp_path):
    copied = shutil.copytree(run, tmp_path / "run")
    description = json.loads((copied / "run.json").read_text(encoding="utf-8"))
    description["experiment"]["config"]["enrolment"] = {"k": 3}
    (copied / "run.json").write_text(json.dumps(description), encoding="utf-8")
    write_sums(copied, kept_files(copied))
    with pytest.raises(RunError, match="after hearing 3 utterances of each person"):
        explain_mistakes(copied, 1)
    asked = RobustnessRequest(copied, (tmp_path / "m.parquet",), (), seed=0, places={})
    with pytest.raises(RunError, match="koser robustness does not do"):
        measure_robustness(asked, tmp_path / "out", store_root=tmp_path / "store")
