"""One system under several protocols: which folders, what is compared, what is refused."""

import json
import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from fixtures.sound import write_tones
from koser.data.corpora.folder import prepare
from koser.data.manifest import Manifest
from koser.doctor import examine
from koser.doctor.findings import Verdict
from koser.errors import ConfigError, RunError, SplitError
from koser.evaluation.gap import Side, evaluate_gap
from koser.experiment import series
from koser.experiment.request import TrainRequest
from koser.experiment.run import run_experiment
from koser.experiment.series import (
    FinishedRun,
    choose_folders,
    compare,
    gap_file,
    resolve_series,
    write_gaps,
)
from koser.reporting.report import ReportOptions

QUICK = ("train.epochs=6", "train.batch_size=8", "cnn.channels=[4, 6]", "cnn.hidden_size=8")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder with ``m.parquet`` and, in the end, every run that a test has asked for."""
    folder = tmp_path_factory.mktemp("series")
    tones = write_tones(folder / "tones")
    prepare(tones, speaker_pattern=r"(s\d)_").write(folder / "m.parquet")
    return folder


@pytest.fixture
def request_for(corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(n_seeds=1, manifest=corpus / "m.parquet"):
        return TrainRequest("mfcc", "", manifest=manifest, overrides=QUICK, n_seeds=n_seeds)

    return make


@pytest.fixture
def finished(request_for, corpus, tmp_path):
    """Runs of these splits, each a copy of one that is trained once."""

    def run(*splits, n_seeds=1):
        runs = []
        for experiment in resolve_series(request_for(n_seeds), splits):
            trained = corpus / f"{n_seeds}" / experiment.name
            if not trained.exists():
                run_experiment(experiment, trained, store_root=corpus / "store")
            folder = tmp_path / "runs" / f"{experiment.name}_20260101-000000"
            shutil.copytree(trained, folder)
            runs.append(FinishedRun.read(experiment, folder))
        return runs

    return run


def test_the_gap_is_that_of_the_scores_and_says_which_splits(finished, tmp_path):
    runs = finished("random", "speaker", n_seeds=2)
    values = write_gaps(runs, tmp_path / "gap.json")
    assert json.loads((tmp_path / "gap.json").read_text(encoding="utf-8")) == values
    (gap,) = values["gaps"]
    random, speaker = (run.metrics for run in runs)
    for score in ("uar", "accuracy"):
        assert gap[score] == pytest.approx(random[score] - speaker[score])
    assert gap["uar"] != 0
    assert gap["split_hashes"] == [random["protocol"]["hash"], speaker["protocol"]["hash"]]
    assert (gap["first"], gap["second"]) == ("random", "speaker")
    assert gap["cluster_kind"] == "speaker"
    assert [run["seeds"] for run in values["runs"]] == [[42, 43], [42, 43]]
    assert [run["folder"] for run in values["runs"]] == [run.folder.name for run in runs]


def test_gaps_that_were_not_written_to_their_end_are_written_again(finished, tmp_path, monkeypatch):
    """The command is killed between a run's own file and its report, then run again."""
    runs = finished("random", "speaker")
    path, report = tmp_path / "gap.json", runs[0].folder / "report.html"
    write_gaps(runs, path)
    whole = report.read_text(encoding="utf-8")
    own = runs[0].folder / "gap.json"
    own.write_text("{}", encoding="utf-8")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(series, "write_report", killed)
        with pytest.raises(KeyboardInterrupt):
            write_gaps(runs, path)
    report.write_text("without the gaps", encoding="utf-8")
    values = write_gaps(runs, path)
    assert report.read_text(encoding="utf-8") == whole
    assert json.loads(own.read_text(encoding="utf-8")) == values
    report.write_text("nothing is written twice", encoding="utf-8")
    write_gaps(runs, path)
    assert report.read_text(encoding="utf-8") == "nothing is written twice"


def test_what_comes_after_a_run_may_change_when_its_outputs_were_written_again(
    finished, corpus, tmp_path
):
    runs = finished("random", "speaker")
    write_gaps(runs, tmp_path / "gap.json")
    (runs[0].folder / "report.html").unlink()
    run_experiment(runs[0].experiment, runs[0].folder, store_root=corpus / "store", resume=True)
    (runs[0].folder / "gap.json").write_text("{}", encoding="utf-8")
    write_gaps(runs, tmp_path / "gap.json")
    assert examine(runs[0].folder).verdict is Verdict.ok


def test_each_report_shows_what_becomes_of_its_score_under_the_other_protocols(finished, tmp_path):
    first, second = finished("random", "speaker")
    # Tones are told apart alike under both; a gap that is the same in all has no interval.
    labels = np.random.default_rng(1).permutation(first.predictions["label"].to_numpy())
    guessed = first.predictions.with_columns(predicted=pl.Series(labels))
    runs = (replace(first, predictions=guessed), second)
    values = write_gaps(runs, tmp_path / "gap.json", report=ReportOptions("en"))
    (gap,), (random, speaker) = values["gaps"], (run.metrics for run in runs)
    for run, sign in zip(runs, (1, -1), strict=True):
        assert json.loads((run.folder / "gap.json").read_text("utf-8")) == values
        report = (run.folder / "report.html").read_text("utf-8")
        section = report[report.index("The same system under other protocols") :]
        section = section[: section.index("</table>")]
        assert f"{random['uar']:.3f}" in section
        assert f"{speaker['uar']:.3f}" in section
        low, high = sorted(sign * bound for bound in gap["ci95"]["uar"])
        assert f"{sign * gap['uar']:+.3f} [{low:+.3f}, {high:+.3f}]" in section


def test_speakers_are_those_of_the_corpus_on_both_sides(finished):
    runs = finished("random", "speaker")
    rng = np.random.default_rng(0)
    first, second = (
        replace(run, predictions=run.predictions.with_columns(predicted=shuffled))
        for run in runs
        for shuffled in [pl.Series(rng.permutation(run.predictions["label"].to_numpy()))]
    )
    speaker_of = dict(first.experiment.manifest.table.select("id", "speaker").iter_rows())
    sides = [
        Side("", table["label"], table["predicted"], [speaker_of[name] for name in table["id"]])
        for table in (first.predictions, second.predictions)
    ]
    expected = evaluate_gap(*sides, labels=first.experiment.manifest.labels)
    found = compare(first, second)
    assert found.scores == expected.scores
    assert found.scores["uar"].low < found.scores["uar"].high
    heard = [{speaker_of[name] for name in run.predictions["id"]} for run in runs]
    assert found.n_clusters == len(heard[0] | heard[1])
    assert found.n_shared_clusters == len(heard[0] & heard[1])


def test_every_two_of_three_splits_are_compared_in_their_order(finished, tmp_path):
    values = write_gaps(finished("random", "kfold", "speaker"), tmp_path / "gap.json")
    assert [(gap["first"], gap["second"]) for gap in values["gaps"]] == [
        ("random", "kfold"),
        ("random", "speaker"),
        ("kfold", "speaker"),
    ]


def test_runs_with_other_labels_cannot_be_compared(finished, tmp_path):
    (run,) = finished("random")
    manifest = run.experiment.manifest
    provenance = replace(manifest.provenance, labels=(*manifest.labels, "fear"))
    other = replace(
        run, experiment=replace(run.experiment, manifest=Manifest(manifest.table, provenance))
    )
    with pytest.raises(RunError, match=r"cannot be compared: their labels .* fear"):
        compare(run, other)


def test_the_gap_lies_in_the_folder_asked_for_or_beside_the_runs(finished, tmp_path):
    runs = finished("random", "speaker")
    assert gap_file(runs, tmp_path / "x") == tmp_path / "x" / "gap.json"
    assert gap_file(runs, None) == (
        tmp_path / "runs" / "gap_mfcc_random_speaker_20260101-000000.json"
    )


def test_what_is_read_back_must_be_the_finished_run(finished, request_for):
    (run,) = finished("random")
    (other,) = resolve_series(request_for(n_seeds=2), ["random"])
    with pytest.raises(RunError, match=r"holds another run \(different: seeds\)"):
        FinishedRun.read(other, run.folder)
    (run.folder / "report.html").unlink()
    with pytest.raises(RunError, match="not the finished run mfcc_random"):
        FinishedRun.read(run.experiment, run.folder)
    (run.folder / "report.html").touch()
    (run.folder / "predictions.parquet").write_bytes(b"no table")
    with pytest.raises(RunError, match=r"predictions\.parquet' is damaged"):
        FinishedRun.read(run.experiment, run.folder)


def test_a_series_reads_its_manifest_once(request_for, monkeypatch):
    n_reads = 0
    read = Manifest.read

    def counted(path):
        nonlocal n_reads
        n_reads += 1
        return read(path)

    monkeypatch.setattr(Manifest, "read", counted)
    experiments = resolve_series(request_for(), ["random", "speaker"])
    assert [each.name for each in experiments] == ["mfcc_random", "mfcc_speaker"]
    assert n_reads == 1


def test_splits_that_would_be_one_run_are_refused(request_for, tmp_path):
    with pytest.raises(ConfigError, match="--split random is given twice"):
        resolve_series(request_for(), ["random", "speaker", "random"])
    (experiment,) = resolve_series(request_for(), ["speaker"])
    experiment.split.write(tmp_path / "kept.parquet")
    with pytest.raises(ConfigError, match="both be the run 'mfcc_speaker'"):
        resolve_series(request_for(), ["speaker", str(tmp_path / "kept.parquet")])


def test_a_split_that_cannot_be_made_ends_the_series_before_it_begins(request_for):
    with pytest.raises(SplitError, match="session"):
        resolve_series(request_for(), ["random", "session"])


def test_several_splits_have_a_folder_each_below_the_one_asked_for(request_for, tmp_path):
    experiments = resolve_series(request_for(), ["random", "speaker"])
    out = tmp_path / "x"
    assert choose_folders(experiments, out, resume=False) == [
        out / "mfcc_random",
        out / "mfcc_speaker",
    ]
    assert choose_folders(experiments[:1], out, resume=False) == [out]
    out.mkdir()
    (out / "run.json").touch()
    with pytest.raises(RunError, match="folder of a single run"):
        choose_folders(experiments, out, resume=False)


def test_resuming_a_series_takes_the_newest_run_of_each_with_these_settings(
    finished, request_for, tmp_path
):
    experiments = resolve_series(request_for(), ["random", "speaker"])
    with pytest.raises(RunError, match=r"mfcc_random_\* or .*mfcc_speaker_\*"):
        choose_folders(experiments, None, resume=True)
    (run,) = finished("random")
    newer = run.folder.with_name("mfcc_random_20260202-000000")
    newer.mkdir()
    description = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    description["experiment"]["seeds"] = [7]
    (newer / "run.json").write_text(json.dumps(description), encoding="utf-8")
    folders = choose_folders(experiments, None, resume=True)
    assert folders[0].resolve() == run.folder  # the newer one is of another seed
    assert folders[1].name.startswith("mfcc_speaker_2")
    assert not folders[1].exists()


def test_without_speakers_the_gap_of_two_splits_has_no_interval(request_for, corpus, tmp_path):
    manifest = prepare(corpus / "tones")
    manifest.write(tmp_path / "m.parquet")
    listed = manifest.table.select("id", part=pl.Series(["test", "val", "train"] * 12))
    listed.write_csv(tmp_path / "list.csv")
    request = request_for(manifest=tmp_path / "m.parquet")
    runs = []
    for experiment in resolve_series(request, ["random", f"fixed:{tmp_path / 'list.csv'}"]):
        run_experiment(experiment, tmp_path / experiment.name, store_root=corpus / "store")
        runs.append(FinishedRun.read(experiment, tmp_path / experiment.name))
    gap = compare(*runs)
    assert gap.scores["uar"].bounds is None
    assert gap.notes[-1] == "No intervals: the speakers are unknown."
