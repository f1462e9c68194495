"""Labels mapped and dropped: nothing unseen, rows in = rows out + rows reported."""

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.manifests import manifest
from fixtures.raters import with_votes
from koser.data.manifest import Manifest
from koser.data.mapping import LabelMapping, map_labels, read_mapping, shipped_mappings
from koser.data.raters import rater_shares, vote_counts
from koser.errors import ConfigError, LabelError
from koser.labels import EMOTIONS

RAVDESS = (*EMOTIONS, "calm")


def ravdess(n_each=3):
    return manifest(
        [{"label": label, "speaker": f"S{i % 4}"} for i, label in enumerate(RAVDESS * n_each)]
    )


def test_every_dropped_row_is_reported_with_its_label_and_the_reason():
    mapped = map_labels(ravdess(), read_mapping("four"))
    assert mapped.labels == ("angry", "happiness", "neutral", "sadness")
    counts = dict(mapped.table["label"].value_counts().iter_rows())
    assert counts == {"angry": 3, "happiness": 3, "neutral": 6, "sadness": 3}
    assert mapped.provenance.left_out_by_reason() == {
        f"label '{label}' dropped by the mapping 'four'": 3
        for label in ("disgust", "fear", "surprise")
    }
    assert {row.detail for row in mapped.provenance.left_out} == {"none of the four"}
    assert mapped.provenance.notes == (
        "Labels mapped by 'four': calm → neutral (3 rows); disgust left out (3 rows: none of the "
        "four); fear left out (3 rows: none of the four); surprise left out (3 rows: none of the "
        "four).",
    )


def test_calm_is_neutral_or_left_out_and_both_are_said():
    assert len(map_labels(ravdess(), read_mapping("seven"))) == 24
    without = map_labels(ravdess(), read_mapping("seven-without-calm"))
    assert len(without) == 21
    assert [row.detail for row in without.provenance.left_out] == [
        "between neutral and content; left out rather than called neutral"
    ] * 3


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=st.lists(st.sampled_from(RAVDESS), min_size=1, max_size=30),
    fates=st.dictionaries(
        st.sampled_from(RAVDESS), st.sampled_from([None, *EMOTIONS]), min_size=8, max_size=8
    ),
)
def test_rows_in_are_rows_out_and_rows_reported(rows, fates):
    before = manifest([{"label": label, "speaker": "S"} for label in rows])
    mapping = LabelMapping(
        "invented",
        "",
        {label: fate for label, fate in fates.items() if fate},
        {label: "why not" for label, fate in fates.items() if not fate},
    )
    if all(fates[label] is None for label in rows):
        with pytest.raises(LabelError, match="drops every label"):
            map_labels(before, mapping)
        return
    after = map_labels(before, mapping)
    assert len(after) + len(after.provenance.left_out) == len(rows)
    was = dict(before.table.select("id", "label").iter_rows())
    for name, label in after.table.select("id", "label").iter_rows():
        assert label == fates[was[name]]
    assert {row.source for row in after.provenance.left_out} == {
        name for name, label in was.items() if fates[label] is None
    }


def test_votes_and_distributions_follow_and_votes_for_what_is_dropped_count_for_nothing():
    plain = manifest(
        [{"label": "calm"}, {"label": "angry"}, {"label": "neutral"}, {"label": "fear"}], None
    )
    labels = plain.labels  # angry fear neutral calm
    table = plain.table.with_columns(
        pl.Series(
            "distribution",
            [[0.0, 0.0, 0.25, 0.75], [0.5, 0.5, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], None],
        )
    )
    votes = [["calm", "neutral", "fear"], ["angry", "fear"], ["fear"], None]
    rated = with_votes(Manifest(table, plain.provenance), votes)
    mapping = LabelMapping(
        "m", "", {"angry": "angry", "neutral": "neutral", "calm": "neutral"}, {"fear": "no"}
    )
    assert labels == ("angry", "fear", "neutral", "calm")
    mapped = map_labels(rated, mapping)
    assert mapped.labels == ("angry", "neutral")
    assert mapped.table["distribution"].to_list() == [[0, 1], [1, 0], None]
    counts = vote_counts(mapped.table["votes"], mapped.labels)
    assert counts.tolist() == [[0, 2, 1], [1, 0, 1], [0, 0, 1]]
    np.testing.assert_array_equal(rater_shares(mapped), [[0, 1], [1, 0], [0, 0]])


def test_a_label_that_the_mapping_forgets_is_refused_with_its_rows():
    forgetful = LabelMapping("m", "", {label: label for label in EMOTIONS}, {})
    with pytest.raises(LabelError, match=r"does not say what becomes of 'calm' \(3 rows\)"):
        map_labels(ravdess(), forgetful)


def test_labels_swap_without_meeting():
    before = manifest([{"label": "angry"}, {"label": "fear"}], None)
    after = map_labels(before, LabelMapping("m", "", {"angry": "fear", "fear": "angry"}, {}))
    assert after.table["label"].to_list() == ["fear", "angry"]


@pytest.mark.parametrize("name", sorted(shipped_mappings()))
def test_shipped_mappings_know_every_label_of_every_corpus_with_emotions(name):
    mapping = read_mapping(name)
    assert mapping.about
    from koser.data.corpora import aihub259, aihub637, emotiontts
    from koser.data.corpora import ravdess as of_ravdess
    from koser.labels import ALIASES, canonical_label

    known = {*mapping.targets, *mapping.drops}
    labels = {
        *aihub259.BLOCKS, *emotiontts.BLOCKS, *of_ravdess.EMOTIONS.values(), *ALIASES.values(),
        *map(canonical_label, aihub637.EMOTIONS),
    }  # fmt: skip
    assert labels <= known


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('keep = ["a"]\n[drop]\na = "x"', "says two things of a"),
        ('[drop]\na = " "', "drops a without a reason"),
        ('keeps = ["a"]', "has keeps. A mapping has"),
        ("keep = 3", "is no mapping"),
        ("keep = [", "is not a TOML file"),
    ],
)
def test_a_mapping_that_contradicts_itself_is_refused(tmp_path, text, message):
    path = tmp_path / "m.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_mapping(str(path))


def test_a_mapping_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(ConfigError, match="Shipped: four, four-without-calm, seven"):
        read_mapping("five")
