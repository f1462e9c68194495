"""Inner folds: rows of the whole manifest, each tested once, apart as the outer protocol says."""

import numpy as np
import pytest

from koser.data.corpora.folder import prepare
from koser.data.manifest import Manifest
from koser.data.nesting import inner_protocol, restrict, split_again
from koser.data.splits import SplitOptions, make_split
from koser.errors import SplitError


@pytest.fixture
def manifest(tone_corpus):
    return prepare(tone_corpus(), speaker_pattern=r"(s\d)_")


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        ("speaker+script", "speaker+script"),
        ("session", "session"),
        ("speaker", "kfold"),
        ("random", "kfold"),
        ("leave_one_speaker_out", "kfold"),
        ("fixed:ravdess", "kfold"),
    ],
)
def test_sentences_and_sessions_are_kept_apart_where_the_outer_split_does(outer, inner):
    assert inner_protocol(outer) == inner


def test_rows_are_those_of_the_whole_manifest_and_each_is_tested_once(manifest):
    speaker = manifest.table["speaker"].to_numpy()
    rows = np.flatnonzero(speaker != "s2")[::-1]  # in any order
    folds = split_again(manifest, rows, "kfold", SplitOptions(n_folds=3, val_fraction=0.25))
    tested = np.concatenate([fold.test for fold in folds])
    np.testing.assert_array_equal(np.sort(tested), np.sort(rows))
    for fold in folds:
        parts = [set(speaker[part]) for part in fold]
        assert all(parts)
        assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
        np.testing.assert_array_equal(np.sort(np.concatenate(fold)), np.sort(rows))


def test_under_session_the_two_people_of_a_dialogue_do_not_meet_in_an_inner_fold(manifest):
    pairs = manifest.table["speaker"].replace_strict({f"s{i}": f"{i // 2}" for i in range(6)})
    dialogues = Manifest(manifest.table.with_columns(session=pairs), manifest.provenance)
    options = SplitOptions(n_folds=3, val_fraction=0.0)
    for fold in split_again(dialogues, np.arange(36), "session", options):
        assert len(fold.test) == 12
        assert not set(pairs[fold.train.tolist()]) & set(pairs[fold.test.tolist()])


def test_more_folds_than_speakers_are_refused(manifest):
    with pytest.raises(SplitError, match="9 folds of 6"):
        split_again(manifest, np.arange(36), "kfold", SplitOptions(n_folds=9))


def test_a_split_of_all_is_one_of_those_that_are_left_unless_a_fold_has_nothing_to_test(manifest):
    split = make_split(manifest, "leave_one_speaker_out", SplitOptions(val_fraction=0.0))
    assert restrict(split, manifest) is split
    fewer = Manifest(manifest.table[2:], manifest.provenance)
    left = restrict(split, fewer).check(fewer)
    assert left.n_folds == split.n_folds
    assert left.hash != split.hash
    assert left.notes[-1] == "2 utterances of the split are left out."
    without = Manifest(manifest.table.filter(speaker="s1"), manifest.provenance)
    with pytest.raises(SplitError, match=r"nothing left in the (train|test) part of fold"):
        restrict(split, without)
