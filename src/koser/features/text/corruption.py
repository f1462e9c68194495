"""Simulated recognition errors: texts as a worse recogniser would have heard them.

A network that trains on good transcripts alone trusts them too much. Errors are made
letter by letter. In a Hangul syllable one sound is exchanged for a similar one: plain for
tense or aspirated consonants, vowels that merge in speech, final consonants that sound
alike [1]_. Other letters are exchanged for any other of their alphabet.

References
----------
.. [1] Shin, Kiaer & Cha, "The Sounds of Korean", Cambridge University Press, 2012,
   chapters 4 (contrasts and mergers) and 8 (neutralisation of finals).
"""

from __future__ import annotations

import hashlib
import string
import unicodedata

import numpy as np

# Hangul syllables are encoded as (initial × 21 + vowel) × 28 + final (Unicode, section 3.12).
# The sounds are named by the Revised Romanization, in the order of the code points; "-" is none.
_FIRST, _LAST = 0xAC00, 0xD7A3
_INITIALS = "g kk n d tt r m b pp s ss - j jj ch k t p h"
_VOWELS = "a ae ya yae eo e yeo ye o wa wae oe yo u wo we wi yu eu ui i"
_FINALS = "- g kk gs n nj nh d l lg lm lb ls lt lp lh m b bs s ss ng j ch k t p h"
_SIMILAR_INITIALS = ("g kk k", "d tt t", "b pp p", "s ss", "j jj ch", "n r", "m b", "- h")
_SIMILAR_VOWELS = ("ae e", "yae ye", "o u", "eo o", "eu u", "wae oe we", "ui i", "yeo eo", "ya a")
_SIMILAR_FINALS = ("g kk k gs", "d s ss j ch t h", "b p bs", "n nj nh ng m", "l lh lb ls", "- ng n")
# Shares of the kinds of errors; substitutions are the most frequent ones of recognisers.
_SUBSTITUTED, _DELETED = 0.7, 0.2  # the rest is inserted


def corrupt(text: str, rate: float, *, variant: int) -> str:
    """A text with errors, the same whenever it is asked for.

    Parameters
    ----------
    text : str
        The text; blanks and punctuation stay.
    rate : float in [0, 1]
        Expected errors per letter, as a character error rate counts them.
    variant : int
        Which of the text's possible corruptions.

    Returns
    -------
    str
        In NFC.
    """
    normal = unicodedata.normalize("NFC", text)
    digest = hashlib.sha256(f"{variant} {rate!r} {normal}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    letters: list[str] = []
    for letter in normal:
        letters.append(letter if rng.random() >= rate else _spoil(letter, rng))
    return "".join(letters)


def _spoil(letter: str, rng: np.random.Generator) -> str:
    """A letter with an error: another one, none, or two."""
    if not letter.isalnum():
        return letter
    kind = rng.random()
    if kind < _SUBSTITUTED:
        return _similar(letter, rng)
    return "" if kind < _SUBSTITUTED + _DELETED else letter + _similar(letter, rng)


def _similar(letter: str, rng: np.random.Generator) -> str:
    """Another letter that could be heard for it."""
    code = ord(letter)
    if not _FIRST <= code <= _LAST:
        others = string.digits if letter.isdigit() else string.ascii_lowercase
        return str(rng.choice([each for each in others if each != letter.lower()]))
    initial, rest = divmod(code - _FIRST, 21 * 28)
    vowel, final = divmod(rest, 28)
    changes = [
        *((each, vowel, final) for each in _NEAR_INITIALS[initial]),
        *((initial, each, final) for each in _NEAR_VOWELS[vowel]),
        *((initial, vowel, each) for each in _NEAR_FINALS[final]),
    ]
    # There is always one: every initial is in a group.
    initial, vowel, final = changes[int(rng.integers(len(changes)))]
    return chr(_FIRST + (initial * 21 + vowel) * 28 + final)


def _neighbours(sounds: str, groups: tuple[str, ...]) -> list[list[int]]:
    """For each sound, those that it is in a group with."""
    names = sounds.split()
    near: list[list[int]] = [[] for _ in names]
    for group in groups:
        members = [names.index(name) for name in group.split()]
        for member in members:
            near[member] += [other for other in members if other != member]
    return near


_NEAR_INITIALS = _neighbours(_INITIALS, _SIMILAR_INITIALS)
_NEAR_VOWELS = _neighbours(_VOWELS, _SIMILAR_VOWELS)
_NEAR_FINALS = _neighbours(_FINALS, _SIMILAR_FINALS)
