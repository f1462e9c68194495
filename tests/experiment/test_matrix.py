"""The cross-corpus table, from runs made of predictions alone."""

import json

import numpy as np
import pytest
import sklearn.metrics

from fixtures.manifests import manifest
from fixtures.runs import write_run
from koser.errors import LabelError, RunError
from koser.experiment.matrix import evaluate_matrix
from koser.files import write_json
from koser.reporting.language import load_phrases
from koser.reporting.matrix import as_csv, as_markdown, cell_notes, write_matrix
from koser.reporting.runs import RunFolder

LABELS = ("angry", "neutral", "sadness")


def corpus(path, name, labels=LABELS, n=96):
    rows = [
        {
            "id": f"u{i:03d}",
            "label": labels[i % len(labels)],
            "speaker": f"s{i % 8}",
            "corpus": name,
        }
        for i in range(n)
    ]
    manifest(rows).write(path)
    return path


def run_on(folder, *corpora, **changes):
    write_run(folder, **changes)
    write_json({"corpora": list(corpora)}, folder / "data.json")
    return folder


@pytest.fixture
def one(tmp_path):
    return run_on(tmp_path / "a" / "run", "a"), corpus(tmp_path / "a.parquet", "a")


def test_within_a_corpus_a_cell_is_the_runs_own_test_over_shared_labels(one, tmp_path):
    run, given = one
    kept = [i for i in range(96) if i % 3 != 2]
    two = run_on(
        tmp_path / "two", "a", labels=LABELS[:2], ids=[f"u{i:03d}" for i in kept],
        y_true=[LABELS[i % 3] for i in kept], clusters=[f"s{i % 8}" for i in kept],
    )  # fmt: skip
    cell, _ = evaluate_matrix([run, two], [given])["cells"]
    own = RunFolder.read(run).predictions.filter(label="sadness")
    kept = RunFolder.read(run).predictions.join(own, on="id", how="anti")
    answers = np.where(kept["p_angry"] >= kept["p_neutral"], "angry", "neutral")
    expected = sklearn.metrics.balanced_accuracy_score(kept["label"], answers)
    assert cell["is_within"]
    assert cell["uar"] == pytest.approx(expected)
    assert (cell["n"], cell["n_left_out"], cell["n_speakers"]) == (64, 32, 8)
    assert cell["ci95"]["uar"][0] < cell["uar"] < cell["ci95"]["uar"][1]


def test_a_run_on_two_corpora_is_within_both_and_each_cell_has_its_own_utterances(tmp_path):
    ids = [f"{name}/u{i:03d}" for i in range(48) for name in ("a", "b")]
    truth = [LABELS[i % 3] for i in range(48) for _ in "ab"]
    run = run_on(tmp_path / "run", "a", "b", ids=ids, y_true=truth)
    given = [corpus(tmp_path / f"{name}.parquet", name) for name in ("a", "b")]
    matrix = evaluate_matrix([run], given)
    assert [cell["is_within"] for cell in matrix["cells"]] == [True, True]
    assert [cell["n"] for cell in matrix["cells"]] == [48, 48]
    table = RunFolder.read(run).predictions
    own = table.filter(table["id"].str.starts_with("b/"))
    expected = sklearn.metrics.balanced_accuracy_score(own["label"], own["predicted"])
    assert matrix["cells"][1]["uar"] == pytest.approx(expected)


def test_runs_of_one_name_are_told_apart_by_their_folders(one, tmp_path):
    run, given = one
    other = run_on(tmp_path / "b" / "run", "a", accuracy=0.9)
    matrix = evaluate_matrix([run, other], [given])
    assert [cell["run"] for cell in matrix["cells"]] == ["a/run", "b/run"]
    assert matrix["cells"][0]["uar"] != matrix["cells"][1]["uar"]
    with pytest.raises(RunError, match="given twice"):
        evaluate_matrix([run, run], [given])


def test_what_cannot_be_a_table_is_refused(one, tmp_path):
    run, given = one
    with pytest.raises(LabelError, match=r"share 1 labels .* koser map"):
        evaluate_matrix([run], [corpus(tmp_path / "x.parquet", "a", ("angry", "calm"))])
    with pytest.raises(RunError, match="Two manifests are of a"):
        evaluate_matrix([run], [given, corpus(tmp_path / "y.parquet", "a")])
    stranger = run_on(tmp_path / "c", "a", ids=[f"other{i}" for i in range(96)])
    with pytest.raises(RunError, match="tested none of the 96 utterances"):
        evaluate_matrix([stranger], [given])


def started_from(folder, *corpora):
    """Say of a run that it started from a model, which had learnt from one corpus after another."""
    start = None
    for name in corpora:
        start = {"corpus": [name], "init": start}
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    run["experiment"]["init"] = start
    write_json(run, folder / "run.json")


def test_a_run_is_not_tested_on_what_its_start_has_learnt_from(one, tmp_path):
    run, given = one
    started_from(run, "c", "b")
    matrix = evaluate_matrix([run], [given])
    assert matrix["runs"][0]["pretrained_on"] == ["b", "c"]
    assert "run started from a model that was trained on b, c." in matrix["notes"]
    for name in ("b", "c"):
        with pytest.raises(RunError, match=f"started from a model that was trained on {name}"):
            evaluate_matrix([run], [given, corpus(tmp_path / f"{name}.parquet", name)])


@pytest.mark.parametrize(
    ("protocol", "message"),
    [("other_data", "no training"), ("speaker enrolled(3)", "nobody is enrolled")],
)
def test_only_trainings_without_enrolment_have_a_place(tmp_path, protocol, message):
    run = run_on(tmp_path / "run", "a")
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    metrics["protocol"]["protocol"] = protocol
    write_json(metrics, run / "metrics.json")
    with pytest.raises(RunError, match=message):
        evaluate_matrix([run], [corpus(tmp_path / "a.parquet", "a")])


def test_a_cell_is_scored_by_the_labels_of_its_column(one, tmp_path):
    run, _ = one
    table = [*LABELS[:2], "neutral"]  # sadness is called neutral
    with pytest.raises(LabelError, match=r"learnt other labels of 32 utterances of a .* u002"):
        evaluate_matrix([run], [corpus(tmp_path / "mapped.parquet", "a", table)])


def test_every_form_says_the_same_and_hostile_names_stay_text(tmp_path):
    name = "<b>|a,'\"</b>"
    run = run_on(tmp_path / "run", name)
    matrix = evaluate_matrix([run], [corpus(tmp_path / "m.parquet", name)])
    (cell,) = matrix["cells"]
    shown = f"{cell['uar']:.3f}"
    for language in ("en", "ko"):
        written = write_matrix(matrix, tmp_path / language, language=language)
        page = written[-1].read_text(encoding="utf-8")
        assert "<b>" not in page
        assert shown in page
        assert shown in as_markdown(matrix, load_phrases(language))
        assert json.loads(written[0].read_text(encoding="utf-8")) == matrix
        foreign = {note for note, other in cell_notes(matrix, load_phrases(language)) if other}
        assert not foreign
    assert repr(cell["uar"]) in as_csv(matrix)
    assert "\\<b\\>\\|a" in as_markdown(matrix, load_phrases("en"))


def test_notes_of_cells_are_said_in_the_language_with_where_they_belong():
    few = (
        "Only 2 clusters (speaker): the intervals are wide, and hold only if these few are like "
        "all others."
    )
    cells = [{"run": "m1", "corpus": "emotiontts", "notes": [few]}] * 2
    matrix = {"notes": ["m1 started from a model that was trained on a."], "cells": cells}
    (start, _), (note, language) = cell_notes(matrix, load_phrases("ko"))
    assert start == "m1은(는) a(으)로 학습한 모델에서 시작했습니다."
    assert note.startswith("emotiontts에서 시험한 m1: 묶음(화자)이 2개뿐이어서")
    assert language == ""
    assert cell_notes(matrix, load_phrases("en"))[1] == (f"m1 on emotiontts: {few}", "")
