"""Inner folds: rows of the whole manifest, each tested once, apart as the outer protocol says."""

import numpy as np
import pytest

from koser.data.corpora.folder import prepare
from koser.data.nesting import inner_protocol, split_again
from koser.data.splits import SplitOptions
from koser.errors import SplitError


@pytest.fixture
def manifest(tone_corpus):
    return prepare(tone_corpus(), speaker_pattern=r"(s\d)_")


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        ("speaker+script", "speaker+script"),
        ("speaker", "kfold"),
        ("random", "kfold"),
        ("leave_one_speaker_out", "kfold"),
        ("fixed:ravdess", "kfold"),
    ],
)
def test_sentences_are_kept_apart_where_the_outer_split_does(outer, inner):
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


def test_more_folds_than_speakers_are_refused(manifest):
    with pytest.raises(SplitError, match="9 folds of 6"):
        split_again(manifest, np.arange(36), "kfold", SplitOptions(n_folds=9))
