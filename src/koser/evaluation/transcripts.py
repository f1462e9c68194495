"""How far transcripts are from what was said."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from koser.errors import UndefinedMetricError


def character_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Character errors per reference character, without blanks and punctuation.

    Insertions, deletions and substitutions of all texts, divided by the characters of all
    references. Korean is spaced in several right ways, so only letters and digits count;
    a Hangul syllable is one.

    Parameters
    ----------
    references : Sequence[str]
        What was said.
    hypotheses : Sequence[str]
        What was recognised, in the same order.

    Returns
    -------
    float
        0 or more; above 1 where more was inserted than said.

    Raises
    ------
    UndefinedMetricError
        If the numbers of texts differ, or no reference has a letter.

    Examples
    --------
    >>> character_error_rate(["How are you?", "Fine."], ["how are you", "Find"])
    0.07692307692307693
    """
    if len(references) != len(hypotheses):
        raise UndefinedMetricError(
            f"{len(references)} references and {len(hypotheses)} hypotheses: give one each."
        )
    pairs = [
        (_letters(reference), _letters(hypothesis))
        for reference, hypothesis in zip(references, hypotheses, strict=True)
    ]
    n_letters = sum(len(reference) for reference, _ in pairs)
    if n_letters == 0:
        raise UndefinedMetricError("No reference has a letter: the error rate is undefined.")
    return sum(edit_distance(*pair) for pair in pairs) / n_letters


def edit_distance(first: str, second: str) -> int:
    """Fewest insertions, deletions and substitutions that turn one text into the other.

    All cells of a column are computed at once, as bits of two integers [1]_.

    References
    ----------
    .. [1] Myers, "A fast bit-vector algorithm for approximate string matching based on
       dynamic programming", J. ACM 46(3), 1999, as simplified by Hyyrö (2003).

    Examples
    --------
    >>> edit_distance("kitten", "sitting")
    3
    """
    if not first:
        return len(second)
    places: dict[str, int] = {}
    for place, letter in enumerate(first):
        places[letter] = places.get(letter, 0) | 1 << place
    every, last = (1 << len(first)) - 1, 1 << len(first) - 1
    rising, falling, distance = every, 0, len(first)  # vertical differences of +1 and of -1
    for letter in second:
        equal = places.get(letter, 0) | falling
        diagonal = ((equal & rising) + rising ^ rising) | equal
        right_rising = falling | ~(diagonal | rising) & every
        right_falling = diagonal & rising
        distance += bool(right_rising & last) - bool(right_falling & last)
        right_rising = (right_rising << 1 | 1) & every
        right_falling = right_falling << 1 & every
        rising = right_falling | ~(diagonal | right_rising) & every
        falling = diagonal & right_rising
    return distance


def _letters(text: str) -> str:
    """Letters and digits, in NFC and lower case."""
    normal = unicodedata.normalize("NFC", text).casefold()
    return "".join(letter for letter in normal if letter.isalnum())
