"""Nested cross-validation: what may decide, what may not, and what is left when it is killed."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from fixtures.raters import simulate_votes
from koser.config import resolve_config
from koser.data.corpora.folder import prepare
from koser.data.manifest import Manifest
from koser.data.splits import SplitOptions, make_split
from koser.errors import ConfigError, SplitError
from koser.evaluation.metrics import label_ids, unweighted_average_recall
from koser.experiment.following import check_shareable
from koser.experiment.members import Member, MemberWork
from koser.experiment.request import TrainRequest
from koser.experiment.run import run_experiment
from koser.experiment.search import SearchSpace
from koser.experiment.tuning import TuneOptions, Tuner, Tuning
from koser.models.checkpoint import Checkpoint
from koser.systems.mfcc import MfccConfig, MfccSystem
from koser.systems.system import Part
from koser.training.ranks import Ranks

QUICK = ("train.batch_size=8", "cnn.channels=[4, 6]", "cnn.hidden_size=8", "speeds=[]")
# One epoch recognises nothing, forty recognise these tones.
SPACE = SearchSpace({"train.epochs": [1, 40]})
OPTIONS = TuneOptions(n_trials=3, n_folds=2)


@pytest.fixture
def manifest(tone_corpus):
    return prepare(tone_corpus(n_speakers=6), speaker_pattern=r"(s\d)_")


@pytest.fixture
def search(manifest, tmp_path):
    """A tuner, what it tunes, and the training it tunes for."""

    def make(manifest=manifest, *, space=SPACE, options=OPTIONS, folder="parts"):
        split = make_split(manifest, "speaker", SplitOptions(val_fraction=0.2))
        config = resolve_config(MfccConfig, overrides=[*QUICK, "train.epochs=1"])
        (parts,) = split.parts(manifest)
        member = Member(0, Part(*(np.flatnonzero(parts == part) for part in range(3)), seed=1))
        store = tmp_path / "store"
        work = MemberWork(
            "mfcc",
            manifest.labels,
            config,
            None,
            tmp_path / folder,
            {},
            label_ids(manifest.table["label"].to_numpy(), labels=manifest.labels),
        )
        return Tuner(Tuning(space, options), manifest, split, store), work, member

    return make


def tried(work, member):
    kept = json.loads((work.folder / member.name / "tuning.json").read_text("utf-8"))["trials"]
    return [(trial["settings"], trial["scores"], trial["state"]) for trial in kept]


def test_what_recognises_more_is_chosen(search):
    tuner, work, member = search()
    config, _ = tuner.choose(work, member)
    assert config.train.epochs == 40
    scores = {settings["train.epochs"]: scores[-1] for settings, scores, _ in tried(work, member)}
    assert scores[40] > 0.9 > scores[1]


def test_every_trial_learns_its_own_target(search, manifest):
    rated = simulate_votes(manifest, agreement=0.5, seed=0)
    space = SearchSpace({"train.target": ["label", "votes"], "train.epochs": [5]})
    options = TuneOptions(n_trials=2, n_folds=2, objective="nll")
    tuner, work, member = search(rated, space=space, options=options)
    tuner.choose(work, member)
    (_, first, _), (_, second, _) = tried(work, member)
    assert first != second


def test_the_log_loss_is_to_the_raters_where_they_are_learnt(search):
    """Who learns raters that never agree should be as unsure as they are."""
    space = SearchSpace({"train.epochs": [1, 40]})
    options = TuneOptions(n_trials=2, n_folds=2, objective="nll")
    chosen, scores = {}, {}
    for name in ("label", "raters"):
        tuner, work, member = search(space=space, options=options, folder=name)
        if name == "raters":
            work = replace(work, shares=np.full((len(work.true_ids), 3), 1 / 3, np.float32))
        config, _ = tuner.choose(work, member)
        chosen[name] = config.train.epochs
        scores[name] = min(values[-1] for _, values, _ in tried(work, member))
    assert chosen == {"label": 40, "raters": 1}
    assert scores["raters"] == pytest.approx(np.log(3), abs=0.05)  # the raters' own entropy, least


def test_an_inner_score_is_that_of_models_trained_by_hand(search, tmp_path):
    tuner, work, member = search(options=TuneOptions(n_trials=1, n_folds=2))
    tuner.choose(work, member)
    ((settings, scores, _),) = tried(work, member)
    config = resolve_config(
        MfccConfig, overrides=[*QUICK, f"train.epochs={settings['train.epochs']}"]
    )
    rows = np.sort(np.concatenate([member.part.train, member.part.val]))
    own = Manifest(tuner.manifest.table[rows.tolist()], tuner.manifest.provenance)
    inner = make_split(own, "kfold", SplitOptions(n_folds=2, val_fraction=0.2))
    data = MfccSystem.extract(tuner.manifest, config, train_rows=rows, store_root=tmp_path / "s")
    labels = tuner.manifest.table["label"].to_numpy()
    true, predicted = [], []
    for parts in inner.parts(own):
        part = Part(*(rows[parts == number] for number in range(3)), seed=1)
        system = MfccSystem(tuner.manifest.labels, config)
        system.fit(data, part, resume_file=tmp_path / "last.pth")
        (tmp_path / "last.pth").unlink()
        found = system.predict_rows(data, part.test)
        true += labels[part.test].tolist()
        predicted += [tuner.manifest.labels[place] for place in found.argmax(axis=1)]
    expected = unweighted_average_recall(true, predicted, labels=tuner.manifest.labels)
    assert scores[-1] == pytest.approx(expected)


def test_nothing_of_the_test_part_has_a_say(search, manifest):
    tuner, work, member = search()
    tuner.choose(work, member)
    # The same corpus, in which the test part has other labels and another sound.
    is_tested = np.isin(np.arange(len(manifest)), member.part.test)
    table = manifest.table.with_columns(
        pl.when(pl.Series(is_tested)).then(pl.lit("angry")).otherwise("label").alias("label"),
        pl.when(pl.Series(is_tested))
        .then(pl.lit(manifest.table["path"][0]))
        .otherwise("path")
        .alias("path"),
    )
    other, other_work, _ = search(Manifest(table, manifest.provenance), folder="other")
    other.choose(other_work, member)
    assert tried(other_work, member) == tried(work, member)
    # And were it another training's part, it would have had one.
    part = member.part
    swapped = replace(member, part=Part(part.test, part.val, part.train, part.seed))
    other.choose(other_work, replace(swapped, fold=1))
    assert tried(other_work, replace(swapped, fold=1)) != tried(work, member)


def test_a_killed_search_goes_on_as_if_it_had_not_been(search, monkeypatch):
    options = TuneOptions(n_trials=7, n_folds=2)
    space = SearchSpace({"train.learning_rate": {"low": 1e-4, "high": 1e-2}})
    tuner, work, member = search(space=space, options=options)
    tuner.choose(work, member)
    tuner, killed, _ = search(space=space, options=options, folder="killed")
    fit, n_left = MfccSystem.fit, [9]

    def fit_and_die(self, *args, **kwargs):
        result = fit(self, *args, **kwargs)
        n_left[0] -= 1
        if not n_left[0]:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(MfccSystem, "fit", fit_and_die)
    with pytest.raises(KeyboardInterrupt):
        tuner.choose(killed, member)
    monkeypatch.undo()
    assert 0 < len(tried(killed, member)) < 7
    tuner.choose(killed, member)
    assert tried(killed, member) == tried(work, member)


def test_settings_that_contradict_each_other_are_reported_and_never_chosen(search):
    space = SearchSpace({"mfcc.n_mfcc": [40, 400]})  # of 128 bands
    tuner, work, member = search(space=space, options=TuneOptions(n_trials=5, n_folds=2))
    config, _ = tuner.choose(work, member)
    assert config.mfcc.n_mfcc == 40
    assert "refused" in {state for *_, state in tried(work, member)}
    tuner, work, member = search(
        space=SearchSpace({"mfcc.n_mfcc": [400]}), options=OPTIONS, folder="none"
    )
    with pytest.raises(ConfigError, match=r"None of 1 settings .* n_mfcc = 400 exceeds"):
        tuner.choose(work, member)


def test_too_few_speakers_to_split_again_are_an_error_that_says_so(search):
    tuner, work, member = search(options=TuneOptions(n_trials=1, n_folds=5))
    with pytest.raises(
        SplitError, match=r"Fold 0 cannot be tuned: its .* utterances cannot be split"
    ):
        tuner.choose(work, member)


def test_a_fold_that_cannot_be_tuned_is_refused_before_any_work(manifest, tmp_path):
    """The first fold trains on four speakers, the second on one."""
    people = manifest.table["speaker"].unique().sort().to_list()
    split = make_split(manifest, "kfold", SplitOptions(n_folds=2, val_fraction=0.0))
    parts = [
        pl.col("speaker")
        .is_in(people[: (4, 1)[fold]])
        .replace_strict({True: "train", False: "test"})
        for fold in range(2)
    ]
    table = pl.concat(
        manifest.table.select("id", pl.lit(fold, pl.Int32).alias("fold"), part.alias("part"))
        for fold, part in enumerate(parts)
    )
    replace(split, table=table.cast(dict(split.table.schema))).write(tmp_path / "s.parquet")
    manifest.write(tmp_path / "m.parquet")
    request = TrainRequest(
        "mfcc",
        str(tmp_path / "s.parquet"),
        manifest=tmp_path / "m.parquet",
        overrides=QUICK,
        tuning=Tuning(SPACE, OPTIONS),
    )
    with pytest.raises(SplitError, match="Fold 1 cannot be tuned"):
        run_experiment(request.resolve(), tmp_path / "run", store_root=tmp_path / "store")
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "store").exists()


def test_a_tuned_run_keeps_what_was_chosen_and_tells_its_budget(tone_corpus, tmp_path):
    corpus = tone_corpus(n_speakers=8, n_each=3)
    prepare(corpus, speaker_pattern=r"(s\d)_").write(tmp_path / "m.parquet")
    request = TrainRequest(
        "mfcc",
        "kfold",
        manifest=tmp_path / "m.parquet",
        split_options=SplitOptions(n_folds=2, val_fraction=0.0),
        overrides=(*QUICK, "train.epochs=1"),
        tuning=Tuning(SPACE, OPTIONS),
    )
    run = run_experiment(request.resolve(), tmp_path / "run", store_root=tmp_path / "store")
    tuning = run.metrics["tuning"]
    assert [fold["settings"] for fold in tuning["folds"]] == [{"train.epochs": 40}] * 2
    assert all(
        fold["inner_score"] > fold["untuned_inner_score"] is not None for fold in tuning["folds"]
    )
    assert tuning["n_inner_folds"] == 2
    tried = [
        json.loads(path.read_text("utf-8"))["trials"]
        for path in run.folder.glob("parts/*/tuning.json")
    ]
    assert tuning["n_trainings"] == sum(len(trial["scores"]) for one in tried for trial in one)
    assert run.metrics["uar"] > 0.9
    kept = Checkpoint.read(run.folder / "best_model_mfcc.pth")
    assert kept.config["train"]["epochs"] == 40
    report = (run.folder / "report.html").read_text("utf-8")
    assert "train.epochs = 40" in report
    assert f"학습 모두 {tuning['n_trainings']}회" in report


def test_torchrun_does_not_share_a_search():
    request = TrainRequest("mfcc", "kfold", tuning=Tuning(SPACE, OPTIONS))
    with pytest.raises(ConfigError, match=r"koser tune .* Leave torchrun out"):
        check_shareable(request, Ranks(0, 2))
    check_shareable(request, Ranks())
    check_shareable(replace(request, tuning=None), Ranks(0, 2))
