import unicodedata

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from koser.features.text.corruption import corrupt

HANGUL = st.integers(0xAC00, 0xD7A3).map(chr)
TEXTS = st.text(st.one_of(HANGUL, st.sampled_from(list("abcXYZ019 .?!"))), max_size=40)


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3])
def test_the_rate_is_the_character_error_rate(rate):
    # Every Hangul syllable once, in texts of 40.
    texts = [
        "".join(map(chr, range(first, first + 40))) for first in range(0xAC00, 0xD7A0 - 40, 40)
    ]
    spoiled = [corrupt(text, rate, variant=0) for text in texts]
    # 11,000 letters: a share has a standard error of at most .0044; two of them, and a bit for
    # errors that cancel out.
    assert jiwer.cer(texts, spoiled) == pytest.approx(rate, abs=0.012)


@given(text=TEXTS, rate=st.floats(0, 1), variant=st.integers(0, 3))
def test_hangul_stays_hangul_and_blanks_and_marks_stay_where_they_are(text, rate, variant):
    spoiled = corrupt(text, rate, variant=variant)
    assert spoiled == corrupt(text, rate, variant=variant)
    assert spoiled == unicodedata.normalize("NFC", spoiled)
    marks = [letter for letter in text if not letter.isalnum()]
    assert [letter for letter in spoiled if not letter.isalnum()] == marks
    for letter in spoiled:
        assert not letter.isalnum() or letter.isascii() or 0xAC00 <= ord(letter) <= 0xD7A3


@given(text=TEXTS)
def test_no_errors_are_made_where_none_are_wanted(text):
    assert corrupt(text, 0.0, variant=1) == text


@given(letter=HANGUL)
def test_a_heard_syllable_differs_in_one_sound(letter):
    spoiled = corrupt(letter, 1.0, variant=0)
    assert spoiled != letter
    if len(spoiled) == 1:
        first, other = (ord(each) - 0xAC00 for each in (letter, spoiled))
        parts = [(code // 588, code % 588 // 28, code % 28) for code in (first, other)]
        assert sum(one != two for one, two in zip(*parts, strict=True)) == 1


def test_variants_of_a_text_differ():
    text = "".join(map(chr, range(0xAC00, 0xD000, 100)))
    assert len({corrupt(text, 0.2, variant=variant) for variant in range(5)}) == 5
