"""Emotion labels: the document's seven, their aliases and their Korean names.

A corpus with fewer or other labels keeps its own; the order rule is here, the
list itself belongs to the manifest and the run.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from koser.errors import LabelError

EMOTIONS = ("angry", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")

# Spellings met in Korean and English corpora, after `normalise_spelling`.
ALIASES = {
    "anger": "angry",
    "mad": "angry",
    "disgusted": "disgust",
    "disqust": "disgust",  # as KEMDy20 writes it
    "dislike": "disgust",  # as AI Hub 58 does
    "afraid": "fear",
    "fearful": "fear",
    "happy": "happiness",
    "joy": "happiness",
    "neutrality": "neutral",
    "sad": "sadness",
    "surprised": "surprise",
    "bored": "boredom",
    "anxious": "anxiety",
    "embarrassed": "embarrassment",
    "분노": "angry",
    "화남": "angry",
    "혐오": "disgust",
    "공포": "fear",
    "두려움": "fear",
    "행복": "happiness",
    "기쁨": "happiness",
    "중립": "neutral",
    "슬픔": "sadness",
    "놀람": "surprise",
    "놀라움": "surprise",
    "불안": "anxiety",
    "상처": "hurt",
    "당황": "embarrassment",
    "사랑스러움": "affection",
}

KOREAN = {
    "angry": "분노",
    "disgust": "혐오",
    "fear": "공포",
    "happiness": "행복",
    "neutral": "중립",
    "sadness": "슬픔",
    "surprise": "놀람",
    "calm": "차분함",
    "boredom": "지루함",
    "anxiety": "불안",
    "hurt": "상처",
    "embarrassment": "당황",
    "affection": "사랑스러움",
}


def normalise_spelling(label: str) -> str:
    """`label` in NFC, without outer white space, casefolded.

    Examples
    --------
    >>> normalise_spelling(" Angry ")
    'angry'
    """
    return unicodedata.normalize("NFC", label).strip().casefold()


def canonical_label(label: str) -> str:
    """`label` under koser's name for it; an unknown label keeps its own spelling.

    Parameters
    ----------
    label : str
        A label as a corpus spells it.

    Returns
    -------
    str
        The name that it is an alias of, mostly one of `EMOTIONS`, else its normalised spelling.

    Raises
    ------
    LabelError
        If `label` is blank.

    Examples
    --------
    >>> canonical_label("Anger"), canonical_label("슬픔"), canonical_label("calm")
    ('angry', 'sadness', 'calm')
    """
    spelling = normalise_spelling(label)
    if not spelling:
        raise LabelError("A label is blank. Give the utterance a label or leave it out.")
    return _resolved(spelling)


def is_known(label: str) -> bool:
    """Whether `label` is an emotion that koser has a name for, however it is spelt.

    Examples
    --------
    >>> is_known("Sad"), is_known("기쁨"), is_known("Actor_01")
    (True, True, False)
    """
    return _resolved(normalise_spelling(label)) in KOREAN


def _resolved(spelling: str) -> str:
    return ALIASES.get(spelling, spelling)


def ordered_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Distinct `labels` in koser's order: the document's seven first, others by name.

    The order never depends on which label a corpus happens to name first, so a
    probability column means the same in every run on the same labels.

    Examples
    --------
    >>> ordered_labels(["sadness", "calm", "angry", "sadness"])
    ('angry', 'sadness', 'calm')
    """
    distinct = set(labels)
    known = [label for label in EMOTIONS if label in distinct]
    return (*known, *sorted(distinct.difference(EMOTIONS)))
