"""What every protocol promises, on random manifests, and the rules against their definitions."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from fixtures.manifests import manifest
from koser.data.manifest import Manifest
from koser.data.scripts import cluster_scripts
from koser.data.splits import Split, SplitOptions, make_split
from koser.errors import SplitError
from koser.reporting.language import load_phrases

LABELS = ("angry", "fear", "neutral", "sadness")
# No two of them are near-duplicates.
SENTENCES = (
    "강아지가 아파서 밤새 못 잤어",
    "월급이 올라서 정말 기뻐",
    "지하철에서 지갑을 잃어버렸어",
    "할머니 수술이 내일이야",
    "윗집이 시끄러워서 미치겠네",
    "우산을 깜빡 두고 왔다",
    "드디어 시험에 합격했구나",
    "버스 파업 때문에 늦었습니다",
)
FOLDED = ("leave_one_speaker_out", "kfold", "speaker+script cells")
SESSIONS = ("session", "session folds")


def random_manifest(seed: int, *, n: int, n_groups: int, p_labels=(0.4, 0.1, 0.2, 0.3)) -> Manifest:
    """Skewed groups with skewed labels of their own."""
    rng = np.random.default_rng(seed)
    of_group = rng.choice(n_groups, size=n, p=rng.dirichlet(np.full(n_groups, 2.0)))
    tilt = rng.dirichlet(20 * np.array(p_labels), size=n_groups)
    return manifest(
        [{"speaker": f"s{g:03d}", "label": str(rng.choice(LABELS, p=tilt[g]))} for g in of_group]
    )


@st.composite
def manifests(draw) -> Manifest:
    n_groups = draw(st.integers(3, 9))
    rows = draw(
        st.lists(
            st.fixed_dictionaries(
                {
                    "speaker": st.sampled_from([f"s{i}" for i in range(n_groups)]),
                    "label": st.sampled_from(LABELS),
                    "text": st.none() | st.sampled_from(SENTENCES),
                    "session": st.sampled_from(["x", "y", "z", "w", "v"]),
                }
            ),
            min_size=20,
            max_size=60,
        )
    )
    return manifest(rows)


def split_or_skip(data: Manifest, protocol: str, **options) -> Split:
    """Random manifests may have too few groups or scripts; that refusal is tested elsewhere."""
    name, _, in_folds = protocol.partition(" ")
    options |= {"cells": {"n_folds": 2, "n_script_folds": 3}, "folds": {"n_folds": 3}}.get(
        in_folds, {}
    )
    refusals = ("empty in fold", "must get one", "needs texts")
    try:
        return make_split(data, name, SplitOptions(**options))
    except SplitError as error:
        if any(refusal in str(error) for refusal in refusals):
            reject()
        raise


def values_per_part(split: Split, data: Manifest, column: str | pl.Series) -> list[list[set]]:
    """For every fold the set of values in train, val and test."""
    values = data.table[column] if isinstance(column, str) else column
    value_of = dict(zip(data.table["id"], values, strict=True))
    return [
        [{value_of[i] for i in split.ids(fold, part)} for part in ("train", "val", "test")]
        for fold in range(split.n_folds)
    ]


def are_disjoint(parts: list[set]) -> bool:
    return sum(map(len, parts)) == len(set.union(*parts))


ALL = ("random", "speaker", *SESSIONS, *FOLDED, "speaker+script")


@pytest.mark.parametrize("protocol", ALL)
@given(data=manifests(), seed=st.integers(0, 5), val_fraction=st.sampled_from([0.0, 0.1, 0.25]))
@settings(max_examples=10)
def test_every_utterance_has_one_part_per_fold_and_no_part_is_empty(
    protocol, data, seed, val_fraction
):
    split = split_or_skip(data, protocol, seed=seed, val_fraction=val_fraction)
    assert split.check(data) is split
    for fold in range(split.n_folds):
        assert split.ids(fold, "train")
        assert split.ids(fold, "test")
        assert bool(split.ids(fold, "val")) == (val_fraction > 0)
    if not protocol.startswith("speaker+script"):
        assert split.counts()["left_out"].sum() == 0


@pytest.mark.parametrize("protocol", ["speaker", *FOLDED, "speaker+script"])
@given(data=manifests(), seed=st.integers(0, 5))
@settings(max_examples=10)
def test_no_speaker_is_in_two_parts(protocol, data, seed):
    split = split_or_skip(data, protocol, seed=seed)
    assert all(are_disjoint(parts) for parts in values_per_part(split, data, "speaker"))
    assert split.grouping.startswith("speaker")


@pytest.mark.parametrize("protocol", SESSIONS)
@given(data=manifests(), seed=st.integers(0, 5))
@settings(max_examples=10)
def test_no_session_is_in_two_parts(protocol, data, seed):
    split = split_or_skip(data, protocol, seed=seed)
    assert all(are_disjoint(parts) for parts in values_per_part(split, data, "session"))
    assert split.grouping == "session"


@pytest.mark.parametrize("protocol", ["speaker+script", "speaker+script cells"])
@given(data=manifests(), seed=st.integers(0, 5), val_fraction=st.sampled_from([0.0, 0.2]))
@settings(max_examples=20)
def test_no_script_is_in_two_parts(protocol, data, seed, val_fraction):
    split = split_or_skip(data, protocol, seed=seed, val_fraction=val_fraction)
    scripts = pl.Series(cluster_scripts(data.table["text"].to_list()))
    assert all(are_disjoint(parts) for parts in values_per_part(split, data, scripts))
    assert split.grouping == "speaker+script"


@pytest.mark.parametrize("protocol", [*FOLDED, "session folds"])
@given(data=manifests(), seed=st.integers(0, 5))
@settings(max_examples=10)
def test_over_all_folds_every_utterance_is_tested_once(protocol, data, seed):
    split = split_or_skip(data, protocol, seed=seed, val_fraction=0)
    tested = [i for fold in range(split.n_folds) for i in split.ids(fold, "test")]
    assert sorted(tested) == sorted(data.table["id"])


@pytest.mark.parametrize("protocol", ALL)
@given(data=manifests(), seed=st.integers(0, 5), order=st.randoms(use_true_random=False))
@settings(max_examples=6)
def test_a_split_depends_on_the_seed_and_not_on_the_order_of_the_rows(protocol, data, seed, order):
    split = split_or_skip(data, protocol, seed=seed)
    rows = list(range(len(data)))
    order.shuffle(rows)
    shuffled = Manifest(data.table[rows], data.provenance)
    assert split_or_skip(shuffled, protocol, seed=seed).table.equals(split.table)


@pytest.mark.parametrize("protocol", ["random", "speaker", "session", "kfold", "speaker+script"])
def test_another_seed_makes_another_split(protocol):
    rng = np.random.default_rng(0)
    data = manifest(
        [
            {"speaker": f"s{rng.integers(30)}", "session": f"{i % 40}", "text": SENTENCES[i % 8]}
            for i in range(400)
        ]
    )
    hashes = {make_split(data, protocol, SplitOptions(seed=seed)).hash for seed in range(5)}
    assert len(hashes) == 5


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("val_fraction", [0.0, 0.1, 0.13])
def test_a_random_split_has_every_label_in_proportion_to_within_one_utterance(seed, val_fraction):
    data = random_manifest(seed, n=437, n_groups=20)
    split = make_split(data, "random", SplitOptions(seed=seed, val_fraction=val_fraction))
    label_of = dict(zip(data.table["id"], data.table["label"], strict=True))
    total = Counter(label_of.values())
    shares = {"train": 0.8 - val_fraction, "val": val_fraction, "test": 0.2}
    for part, share in shares.items():
        counts = Counter(label_of[i] for i in split.ids(0, part))
        assert all(abs(counts[label] - share * total[label]) < 1 for label in LABELS)
        assert abs(counts.total() - share * len(data)) < 2  # the roundings do not add up


def document_split(speaker_of: dict[str, str], seed: int) -> dict[str, list[str]]:
    """The document's rule as a reader would write it down, with its global seeding."""
    speakers = sorted(set(speaker_of.values()))
    np.random.seed(seed)  # noqa: NPY002
    np.random.shuffle(speakers)  # noqa: NPY002
    parts: dict[str, list[str]] = {"test": [], "val": [], "train": []}
    for speaker in speakers:
        if len(parts["test"]) < 0.2 * len(speaker_of):
            part = "test"
        elif len(parts["val"]) < 0.1 * len(speaker_of):
            part = "val"
        else:
            part = "train"
        parts[part] += [i for i, other in speaker_of.items() if other == speaker]
    return {part: sorted(ids) for part, ids in parts.items()}


@pytest.mark.parametrize("seed", [0, 7, 42])
def test_the_speaker_protocol_is_the_documents_rule(seed):
    data = random_manifest(seed, n=900, n_groups=59)
    expected = document_split(dict(zip(data.table["id"], data.table["speaker"], strict=True)), seed)
    split = make_split(data, "speaker", SplitOptions(seed=seed))
    assert {part: split.ids(0, part) for part in expected} == expected


def test_groups_are_called_what_they_are():
    rows = [{"group": f"{20 + i % 9}-female"} for i in range(90)]
    split = make_split(manifest(rows, "group(age×gender)"), "speaker")
    assert split.grouping == "group(age×gender)"


def test_grouped_folds_are_more_balanced_than_scikit_learns():
    ours, theirs = [], []
    for seed in range(15):
        data = random_manifest(seed, n=600, n_groups=24)
        y, groups = data.table["label"].to_numpy(), data.table["speaker"].to_numpy()
        split = make_split(data, "kfold", SplitOptions(seed=seed, val_fraction=0))
        row_of = {name: row for row, name in enumerate(data.table["id"])}
        ours.append(imbalance(y, [[row_of[i] for i in split.ids(f, "test")] for f in range(5)]))
        folds = StratifiedGroupKFold(5).split(y, y, groups)
        theirs.append(imbalance(y, [test for _, test in folds]))
    assert np.mean(ours) < np.mean(theirs)
    assert np.max(np.divide(ours, theirs)) < 3  # greedy both: each loses now and then


def imbalance(y: np.ndarray, folds: list) -> float:
    """Pearson's chi-square distance of the folds' label counts to equal shares."""
    counts = np.array([[(y[fold] == label).sum() for label in LABELS] for fold in folds])
    wanted = counts.sum(axis=0) / len(folds)
    return float(((counts - wanted) ** 2 / wanted).sum())


def test_folds_of_utterances_are_as_exact_as_scikit_learns():
    table = random_manifest(3, n=403, n_groups=9).table.with_columns(speaker=None)
    data = manifest([{"label": label} for label in table["label"]], grouping=None)
    split = make_split(data, "kfold", SplitOptions(n_folds=4, val_fraction=0))
    y = data.table["label"].to_numpy()
    theirs = [test for _, test in StratifiedKFold(4).split(y, y)]
    ids = data.table["id"].to_numpy()
    label_of = dict(zip(ids, y, strict=True))
    ours = [Counter(label_of[i] for i in split.ids(fold, "test")) for fold in range(4)]
    for label in LABELS:
        expected = sorted((y[test] == label).sum() for test in theirs)
        assert sorted(fold[label] for fold in ours) == expected
    assert sorted(fold.total() for fold in ours) == sorted(map(len, theirs))
    assert split.grouping == "utterance"


def test_validation_of_folds_of_utterances_is_stratified():
    data = manifest([{"label": LABELS[i % 4]} for i in range(200)], grouping=None)
    split = make_split(data, "kfold", SplitOptions(val_fraction=0.1))
    label_of = dict(zip(data.table["id"], data.table["label"], strict=True))
    for fold in range(5):
        assert Counter(label_of[i] for i in split.ids(fold, "val")) == dict.fromkeys(LABELS, 4)


def test_leave_one_speaker_out_tests_each_speaker_in_the_order_of_the_names():
    data = random_manifest(5, n=300, n_groups=8)
    split = make_split(data, "leave_one_speaker_out", SplitOptions(val_fraction=0.2))
    tested = [parts[2] for parts in values_per_part(split, data, "speaker")]
    assert tested == [{f"s{i:03d}"} for i in range(8)]
    for counts in split.counts().iter_rows(named=True):
        assert counts["val"] >= 0.2 * (300 - counts["test"])
    assert len({tuple(split.ids(fold, "val")) for fold in range(8)}) > 1


def crossed(n_speakers: int, n_scripts: int, n_labels: int = 4) -> Manifest:
    """Everyone reads everything."""
    return manifest(
        [
            {"speaker": f"s{s}", "text": SENTENCES[t], "label": LABELS[t % n_labels]}
            for s in range(n_speakers)
            for t in range(n_scripts)
        ]
    )


def test_cells_test_what_shares_neither_speaker_nor_script_with_training():
    options = SplitOptions(n_folds=5, n_script_folds=2, val_fraction=0)
    split = make_split(crossed(10, 8), "speaker+script", options)
    # a cell: 2 of 10 speakers × 4 of 8 scripts; training: the other 8 × the other 4
    assert split.counts().drop("fold").unique().rows() == [(32, 0, 8, 40)]
    assert split.n_folds == 10
    row = {i: (f"s{int(i[1:]) // 8}", int(i[1:]) % 8) for i in split.table["id"].unique()}
    # folds are numbered script by script within a fold of speakers
    cells = [[{row[i][k] for i in split.ids(f, "test")} for f in range(10)] for k in (0, 1)]
    assert all(cells[0][f] == cells[0][f - f % 2] for f in range(10))
    assert all(cells[1][f] == cells[1][f % 2] for f in range(10))
    assert "On average 40 of 80 utterances are left out" in split.notes[1]


def test_validation_in_a_cell_shares_neither_speaker_nor_script_with_training():
    options = SplitOptions(n_folds=5, n_script_folds=2, val_fraction=0.25)
    split = make_split(crossed(10, 8, n_labels=2), "speaker+script", options)
    # of a pool of 8 speakers × 4 scripts, 2 × 2 validate and 6 × 2 train
    assert split.counts().drop("fold").unique().rows() == [(12, 4, 8, 56)]


def test_a_label_with_one_script_stays_in_training():
    options = SplitOptions(n_folds=5, n_script_folds=2, val_fraction=0.25)
    with pytest.raises(SplitError, match=r"leaves val empty in fold 0 \(train 24, val 0, test 8"):
        make_split(crossed(10, 8), "speaker+script", options)


def test_parts_keep_their_proportions_where_everyone_reads_everything():
    split = make_split(crossed(10, 8), "speaker+script", SplitOptions(val_fraction=0))
    # 2 : 8 speakers, and half of the scripts for each
    assert split.counts().drop("fold").rows() == [(32, 0, 8, 40)]
    assert split.notes == (
        "80 texts are 8 scripts; the largest holds 10 utterances.",
        "40 of 80 utterances are left out, because their script belongs to another part than "
        "their group: angry 10, fear 10, neutral 10, sadness 10.",
    )


def test_scripts_of_one_part_lose_nothing():
    rows = [{"speaker": f"s{i % 8}", "text": SENTENCES[i % 8]} for i in range(80)]
    split = make_split(manifest(rows), "speaker+script", SplitOptions())
    assert split.counts()["left_out"].sum() == 0
    assert len(split.notes) == 1


def test_unknown_texts_are_counted_and_kept_with_their_speaker():
    rows = [{"speaker": f"s{i % 8}", "text": SENTENCES[i % 8]} for i in range(80)]
    rows += [{"speaker": f"s{i % 8}", "text": text} for i, text in enumerate([None, " … "] * 20)]
    split = make_split(manifest(rows), "speaker+script", SplitOptions())
    assert split.counts()["left_out"].sum() == 0
    assert split.notes == (
        "80 texts are 8 scripts; the largest holds 10 utterances.",
        "40 of 120 utterances have no text: what script they read is not controlled.",
    )


def test_near_duplicate_sentences_are_one_script():
    texts = [f"어제 회의에서 부장님이 나를 무시{end}" for end in ("했어", "했어요", "했다", "하네")]
    rows = [{"speaker": f"s{i % 10}", "text": texts[i % 4]} for i in range(100)]
    with pytest.raises(SplitError, match="leaves test empty"):
        make_split(manifest(rows), "speaker+script", SplitOptions(val_fraction=0))


@pytest.mark.parametrize("protocol", ["speaker", "leave_one_speaker_out", "speaker+script"])
def test_without_speakers_the_error_says_how_to_supply_them(protocol):
    data = manifest([{"text": SENTENCES[i % 8]} for i in range(40)], grouping=None)
    message = (
        f"Protocol '{re.escape(protocol)}' needs to know who speaks.*"
        "--speaker-pattern.*speaker column.*preprocess.py"
    )
    with pytest.raises(SplitError, match=message):
        make_split(data, protocol)


def test_more_folds_than_sessions_are_refused():
    rows = [{"session": f"{i % 4}"} for i in range(40)]
    with pytest.raises(SplitError, match="5 folds of 4 × session"):
        make_split(manifest(rows, None), "session", SplitOptions(n_folds=5))


@pytest.mark.parametrize("n_folds", [None, 4])
def test_people_in_several_sessions_are_counted_in_a_note(n_folds):
    rows = [{"speaker": f"s{i % 20}", "session": f"{i % 20 // 2}"} for i in range(80)]
    options = SplitOptions(n_folds=n_folds)
    assert make_split(manifest(rows), "session", options).notes == ()  # pairs that stay together
    rows[0]["session"], rows[1]["session"], rows[20]["session"] = "7", "8", "9"
    (note,) = make_split(manifest(rows), "session", options).notes
    assert note.startswith("2 of 20 speakers are in several sessions: the split keeps recordings")
    for each in (note, note.replace("speakers", "groups")):
        ((_, untranslated),) = load_phrases("ko").notes([each])
        assert untranslated == ""
    unknown = [{"session": row["session"]} for row in rows]
    assert make_split(manifest(unknown, None), "session", options).notes == ()


def test_a_missing_session_is_refused():
    rows = [{"session": None if i < 3 else f"{i % 9}"} for i in range(40)]
    with pytest.raises(SplitError, match="needs sessions, and 3 of 40 utterances have none"):
        make_split(manifest(rows, None), "session")


def test_missing_texts_are_refused():
    data = manifest([{"speaker": f"s{i % 9}", "text": "..."} for i in range(40)])
    with pytest.raises(SplitError, match="needs texts, and none of the 40 utterances has one"):
        make_split(data, "speaker+script")


@pytest.mark.parametrize(
    ("protocol", "n_speakers", "message"),
    [
        ("speaker", 2, r"leaves train empty in fold 0 \(train 0, val 20, test 20, left_out 0"),
        ("leave_one_speaker_out", 2, "leaves train empty in fold 0.*val-fraction 0"),
        ("leave_one_speaker_out", 1, "leaves train and val empty"),
        ("kfold", 4, "5 folds of 4 × speaker: at least 2 folds are needed"),
    ],
)
def test_too_few_speakers_are_refused_with_counts(protocol, n_speakers, message):
    data = manifest([{"speaker": f"s{i % n_speakers}"} for i in range(40)])
    with pytest.raises(SplitError, match=message):
        make_split(data, protocol)


def test_a_cell_that_leaves_nothing_to_train_on_is_refused():
    rows = [{"speaker": f"s{i % 2}", "text": SENTENCES[i % 2]} for i in range(20)]
    options = SplitOptions(n_folds=2, n_script_folds=2, val_fraction=0)
    with pytest.raises(SplitError, match="leaves train and test empty in fold"):
        make_split(manifest(rows), "speaker+script", options)


def test_more_script_folds_than_scripts_are_refused():
    options = SplitOptions(n_folds=2, n_script_folds=9)
    with pytest.raises(SplitError, match="9 folds of 8 × script"):
        make_split(crossed(4, 8), "speaker+script", options)


def test_more_folds_than_memory_holds_are_refused():
    data = manifest([{"speaker": f"s{i}"} for i in range(4_600)])
    with pytest.raises(SplitError, match=r"4,600 folds of 4,600 utterances are too many"):
        make_split(data, "leave_one_speaker_out")
