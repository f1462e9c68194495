"""Which utterances are heard first: drawn without labels, never scored, the same for every k."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from fixtures.manifests import manifest
from koser.config import build_config
from koser.data.enrolment import (
    Enrolment,
    EnrolmentOptions,
    enrolled_protocol,
    hold_out_enrolment,
    is_enrolled,
)
from koser.data.manifest import Manifest
from koser.data.splits import SplitOptions, make_split
from koser.errors import ConfigError, SplitError

LABELS = ("angry", "neutral", "sadness")


def corpus(n_speakers=6, n_each=12, grouping="speaker"):
    rows = [
        {
            "label": LABELS[number % 3],
            "text": f"문장 {number % 4} 입니다",
            grouping or "text": f"s{speaker}",
        }
        for speaker in range(n_speakers)
        for number in range(n_each)
    ]
    return manifest(rows, grouping)


def options(k=3, **others):
    return EnrolmentOptions(k=k, pool=others.pop("pool", 5), **others)


def split_of(made, protocol="speaker", **others):
    return make_split(made, protocol, SplitOptions(**others))


def parts(split, *names):
    return split.table.filter(pl.col("part").is_in(names)).select("fold", "id").rows()


def test_what_is_drawn_depends_on_the_seed_and_the_ids_alone():
    made = corpus()
    shuffled = Manifest(made.table.sample(fraction=1, shuffle=True, seed=1), made.provenance)
    relabelled = Manifest(made.table.with_columns(pl.col("label").shuffle(seed=2)), made.provenance)
    fewer = Manifest(made.table.filter(pl.col("speaker") != "s0"), made.provenance)

    def drawn(each, seed=42):
        enrolment = Enrolment.draw(each, options(seed=seed))
        ids, speakers = each.table["id"].to_list(), each.table["speaker"].to_list()
        return {speakers[rows[0]]: [ids[row] for row in rows] for rows in enrolment.drawn.tolist()}

    found = drawn(made)
    assert {name: len(ids) for name, ids in found.items()} == {f"s{n}": 5 for n in range(6)}
    assert drawn(shuffled) == drawn(relabelled) == found
    assert drawn(fewer) == {name: ids for name, ids in found.items() if name != "s0"}
    assert drawn(made, seed=43) != found


def test_a_larger_k_hears_the_same_and_more():
    enrolment = Enrolment.draw(corpus(), options())
    for speaker in range(6):
        heard = [enrolment.heard(speaker, k).tolist() for k in range(6)]
        assert [len(rows) for rows in heard] == list(range(6))
        assert all(heard[k] == heard[5][:k] for k in range(6))
        assert set(enrolment.speakers[heard[5]].tolist()) == {speaker}
    short = Enrolment.draw(corpus(n_each=2), options())
    assert len(short.heard(0, 5)) == 2


def test_the_same_utterances_are_scored_for_every_k_and_no_two_protocols_have_one_hash():
    made = corpus()
    plain = split_of(made, "speaker+script", n_folds=3, n_script_folds=2, val_fraction=0.0)
    splits = [hold_out_enrolment(plain, made, options(k)) for k in range(6)]
    drawn = set(np.array(made.table["id"])[Enrolment.draw(made, options()).is_drawn].tolist())
    scored = parts(splits[0], "test")
    assert scored == [each for each in parts(plain, "test") if each[1] not in drawn]
    assert 0 < len(scored) < len(parts(plain, "test"))
    for k, split in enumerate(splits):
        assert parts(split, "test") == scored
        assert parts(split, "train") == parts(plain, "train")
        assert (
            split.protocol
            == f"speaker+script enrolled({k})"
            == enrolled_protocol(plain.protocol, k)
        )
        assert is_enrolled(split.protocol)
        split.check(made)
    assert len({split.hash for split in splits} | {plain.hash}) == 7
    of_each = "Of each tested person 5 utterances, drawn with seed 42, are never scored; "
    assert splits[0].notes[-1] == f"{of_each}none of them is heard."
    assert splits[3].notes[-1].startswith(f"{of_each}the first 3 of them are heard, without")


def test_val_is_tested_as_test_is():
    made = corpus()
    plain = split_of(made, test_fraction=0.3, val_fraction=0.3)
    split = hold_out_enrolment(plain, made, options())
    drawn = Enrolment.draw(made, options()).is_drawn
    matrix, before = split.parts(made)[0], plain.parts(made)[0]
    assert ((matrix == 1) == ((before == 1) & ~drawn)).all()
    assert ((matrix == 0) == (before == 0)).all()
    assert (matrix == 3).sum() == ((before != 0) & drawn).sum()


def test_folds_without_anything_to_score_are_left_out_and_said():
    made = corpus(n_each=6)
    plain = split_of(made, "speaker+script", n_folds=6, n_script_folds=4, val_fraction=0.0)
    split = hold_out_enrolment(plain, made, options())
    n_scored = 6  # one of each speaker is not drawn
    assert len(parts(split, "test")) == n_scored == split.n_folds
    assert set(split.table["fold"]) == set(range(n_scored))
    assert (
        split.notes[-1]
        == f"{plain.n_folds - n_scored} of {plain.n_folds} folds test nothing else, "
        "and are left out."
    )
    split.check(made)


@pytest.mark.parametrize("grouping", ["group", None])
def test_nobody_is_enrolled_where_speakers_are_unknown(grouping):
    made = corpus(grouping=grouping)
    with pytest.raises(SplitError, match="Enrolment needs to know who speaks") as refusal:
        hold_out_enrolment(split_of(made, "random"), made, options())
    assert ("several persons share" if grouping else "nobody") in str(refusal.value)


def test_a_speaker_that_training_has_heard_is_not_enrolled():
    made = corpus()
    with pytest.raises(SplitError, match=r"6 speakers are both trained on and tested in fold 0"):
        hold_out_enrolment(split_of(made, "random"), made, options())


@pytest.mark.parametrize(
    ("n_each", "k", "advice"),
    [
        (5, 3, r"\(--set enrolment.pool=4\)"),
        (5, 5, r"\(--enrol 4 --set enrolment.pool=4\)"),  # a pool of 4 alone is refused for k
        (2, 2, r"\(--enrol 1 --set enrolment.pool=1\)"),
    ],
)
def test_speakers_with_too_few_utterances_are_no_test_and_what_is_advised_works(n_each, k, advice):
    made = corpus(n_each=n_each)
    plain = split_of(made, test_fraction=0.1)
    with pytest.raises(SplitError, match=f"1 of 1 tested speakers .* {n_each}: .*{advice}") as no:
        hold_out_enrolment(plain, made, options(k))
    pool = int(str(no.value).partition("pool=")[2].partition(")")[0])
    hold_out_enrolment(plain, made, options(min(k, pool), pool=pool))


def test_a_speaker_of_one_utterance_can_only_be_left_out():
    made = corpus(n_each=1)
    with pytest.raises(SplitError, match=r"smallest has 1: leave such speakers out") as refusal:
        hold_out_enrolment(split_of(made), made, options(0))
    assert "enrolment.pool=" not in str(refusal.value)


def test_a_split_is_changed_once():
    made = corpus()
    once = hold_out_enrolment(split_of(made), made, options())
    with pytest.raises(SplitError, match="enrolment already"):
        hold_out_enrolment(once, made, options())


@pytest.mark.parametrize(
    ("kept", "k", "advice"),
    [
        (5, 3, r"Give --set enrolment.pool=4, a larger"),
        (3, 3, r"Give --enrol 2 --set enrolment.pool=2, a larger"),
        (1, 0, r"Give a larger --val-fraction, or 0"),
    ],
)
def test_a_val_part_of_nothing_but_what_is_heard_is_refused_and_what_is_advised_works(
    kept, k, advice
):
    made = corpus()
    plain = split_of(made)
    first = np.zeros(len(made), bool)
    first[Enrolment.draw(made, options()).drawn[:, :kept]] = True
    lost = (pl.col("part") == "val") & ~pl.Series(first)
    part = pl.when(lost).then(pl.lit("left_out")).otherwise("part").alias("part")
    split = replace(plain, table=plain.table.with_columns(part))
    with pytest.raises(SplitError, match=f"val part is empty. {advice}"):
        hold_out_enrolment(split, made, options(k))
    if kept > 1:
        hold_out_enrolment(split, made, options(min(k, kept - 1), pool=kept - 1))


def test_no_more_can_be_heard_than_is_held_out():
    with pytest.raises(ConfigError, match=r"give enrolment.pool=11 too, or a lower k"):
        build_config(EnrolmentOptions, {"k": 11})
    assert build_config(EnrolmentOptions, {"k": 11, "pool": 11}).k == 11
