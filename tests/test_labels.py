import itertools
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koser.errors import LabelError
from koser.labels import (
    ALIASES,
    EMOTIONS,
    KOREAN,
    canonical_label,
    normalise_spelling,
    ordered_labels,
)


def test_the_seven_emotions_stand_in_the_order_of_the_document():
    expected = "angry disgust fear happiness neutral sadness surprise"
    assert " ".join(EMOTIONS) == expected


@pytest.mark.parametrize(
    ("spelling", "label"),
    [
        ("Anger", "angry"),
        ("\tSAD ", "sadness"),
        ("Happy", "happiness"),
        ("fearful", "fear"),
        ("surprised", "surprise"),
        ("슬픔", "sadness"),
        (unicodedata.normalize("NFD", "놀라움"), "surprise"),
        ("neutral", "neutral"),
        ("Calm", "calm"),
    ],
)
def test_spellings_of_corpora_are_known(spelling, label):
    assert canonical_label(spelling) == label


@pytest.mark.parametrize("blank", ["", " ", "\t\n", "\u3000"])
def test_a_blank_label_is_refused(blank):
    with pytest.raises(LabelError, match="A label is blank"):
        canonical_label(blank)


@given(st.sampled_from([*ALIASES, *EMOTIONS, "calm", "차분함"]), st.sampled_from(["NFC", "NFD"]))
def test_a_canonical_label_stays_what_it_is(spelling, form):
    label = canonical_label(unicodedata.normalize(form, f" {spelling.upper()}\t"))
    assert canonical_label(label) == label == canonical_label(spelling)


def test_aliases_lead_to_names_that_are_no_aliases_and_are_spelt_normally():
    for alias, label in ALIASES.items():
        assert normalise_spelling(alias) == alias
        assert label not in ALIASES
        assert canonical_label(label) == label


def test_every_emotion_has_a_korean_name_that_leads_back_to_it():
    for label in EMOTIONS:
        assert canonical_label(KOREAN[label]) == label


@given(st.lists(st.sampled_from([*EMOTIONS, "calm", "boredom", "awe"])))
def test_the_order_of_labels_does_not_depend_on_the_data(labels):
    ordered = ordered_labels(labels)
    assert set(ordered) == set(labels)
    assert len(set(ordered)) == len(ordered)
    reference = [*EMOTIONS, "awe", "boredom", "calm"]
    positions = [reference.index(label) for label in ordered]
    assert all(first < second for first, second in itertools.pairwise(positions))
