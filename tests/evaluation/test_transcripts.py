import re

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from koser.errors import UndefinedMetricError
from koser.evaluation.transcripts import character_error_rate, edit_distance

LETTERS = st.text(st.sampled_from("abc" + chr(0xAC00) + chr(0xB098)), max_size=80)
SENTENCES = st.text(st.sampled_from("abcAB .,!?" + chr(0xAC00)), min_size=1, max_size=40)


@given(first=LETTERS, second=LETTERS)
def test_edit_distance_agrees_with_an_independent_implementation(first, second):
    if first and second:
        expected = round(jiwer.cer(first, second) * len(first))
    else:
        expected = max(len(first), len(second))
    assert edit_distance(first, second) == expected


@given(pairs=st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1, max_size=8))
def test_error_rate_is_jiwers_without_blanks_and_punctuation(pairs):
    references, hypotheses = (
        [re.sub(r"\W", "", text).lower() for text in each] for each in zip(*pairs, strict=True)
    )
    if all(references):
        expected = jiwer.cer(references, hypotheses)
        assert character_error_rate(*zip(*pairs, strict=True)) == pytest.approx(expected, abs=1e-12)


def test_nothing_said_has_no_error_rate():
    with pytest.raises(UndefinedMetricError, match="No reference has a letter"):
        character_error_rate(["...", ""], ["a", "b"])
    with pytest.raises(UndefinedMetricError, match="2 references and 1 hypotheses"):
        character_error_rate(["a", "b"], ["a"])
