"""What the worst mistakes rest on: each moment's evidence below the waveform, and each word's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from koser.reporting.language import Phrases
from koser.reporting.svg import Axis, strip

EXPLANATIONS = "explanations.json"  # in a run folder; `koser.experiment.explaining` writes it
N_OUTLINE = 240  # points of a waveform's outline: no sound can be made of them
_N_LEVELS = 4  # shades of a word
_N_NAMED = 3  # moments that are named in words


@dataclass(frozen=True)
class Word:
    """A word of a transcript.

    Attributes
    ----------
    text, evidence : str
        What was heard, and its evidence with a sign.
    style : str
        Classes of the style sheet: whether it speaks for the label, and how much of the largest
        evidence it has.
    """

    text: str
    evidence: str
    style: str


@dataclass(frozen=True)
class Evidence:
    """What one answer rests on.

    Attributes
    ----------
    id : str
        The utterance.
    answer : str
        In the report's language.
    picture, caption : str
        An ``<svg>`` element, and what it shows; empty where there is none.
    words : list[Word]
        Empty for a system that reads none.
    why_not : str
        Why it could not be explained.
    """

    id: str
    answer: str
    picture: str = ""
    caption: str = ""
    words: tuple[Word, ...] = ()
    why_not: str = ""


def evidence_of(explanations: Mapping[str, Any] | None, t: Phrases) -> list[Evidence]:
    """The content of ``explanations.json``, as the report shows it.

    Parameters
    ----------
    explanations : Mapping or None
        None where nothing was explained.
    t : Phrases
        The language.
    """
    return [_evidence(name, values, t) for name, values in (explanations or {}).items()]


def _evidence(name: str, values: Mapping[str, Any], t: Phrases) -> Evidence:
    if "why_not" in values:
        return Evidence(name, "", why_not=values["why_not"])
    cells = values["cells"]
    strongest = sorted(cells, key=lambda cell: -abs(cell["evidence"]))[:_N_NAMED]
    moments = "; ".join(
        f"{cell['start']:.1f}–{cell['end']:.1f} s {cell['evidence']:+.2f}" for cell in strongest
    )
    picture = strip(
        t["evidence.picture"].format(id=name),
        t["evidence.strongest"].format(moments=moments),
        Axis(0, values["duration"], t["evidence.time"]),
        outline=values["outline"],
        bars=[(cell["start"], cell["end"], cell["evidence"]) for cell in cells],
    )
    largest = max((abs(word["evidence"]) for word in values["words"]), default=0.0) or 1.0
    return Evidence(
        name,
        t.label(values["label"]),
        picture,
        t["evidence.caption"].format(reach=f"{abs(strongest[0]['evidence']):.2f}"),
        tuple(_word(word["text"], word["evidence"], largest) for word in values["words"]),
    )


def _word(text: str, evidence: float, largest: float) -> Word:
    level = round(_N_LEVELS * abs(evidence) / largest)
    return Word(text, f"{evidence:+.2f}", f"{'for' if evidence >= 0 else 'against'} level{level}")
