"""emotiontts_open_db: acted Korean emotional speech in four emotions.

Source
    https://github.com/emotiontts/emotiontts_open_db (KAIST and Selvas AI, project no.
    10080667), CC BY-NC-SA 4.0, research use only. A 5 % sample is public, the whole
    database is given on application; both are read.
Parts
    ``emotional-to-emotional``: 10 speakers, each sentence written for one emotion and read
    by all. ``plain-to-emotional``: 5 speakers, the same plain sentences in all emotions.
    22.05 kHz, mono, 16 bit; up to 400 utterances a speaker.
Labels
    By number: 1–100 neutral, 101–200 happiness, 201–300 **sadness**, 301–400 **angry**.
    The README of the corpus swaps the last two; the texts and the voices (slower and
    quieter in 201–300) of emotional-to-emotional contradict it.
"""

from __future__ import annotations

import re
from pathlib import Path

from koser.audio.listing import audio_files
from koser.data.corpora.collecting import Collector, decode, paths_by_stem
from koser.data.corpora.survey import Survey
from koser.data.manifest import Manifest
from koser.engines.engine import Engine
from koser.engines.local import SERIAL

BLOCKS = ("neutral", "happiness", "sadness", "angry")  # 100 numbers each, from 1

# First letters of a speaker's name -> part of the corpus.
PARTS = {"ne": "emotional-to-emotional", "em": "plain-to-emotional"}
FEMALE = ("nea", "neb", "nec", "ned", "nee", "ema", "emb")
MALE = ("nek", "nel", "nem", "nen", "neo", "emf", "emg", "emh")

_NAME = re.compile(r"([a-z]{3})(\d{5})")


def recognise(survey: Survey) -> str | None:
    """Say why `survey` looks like this corpus; None if it does not."""
    found = survey.matching(
        lambda name: (
            (match := _NAME.fullmatch(name.rpartition(".")[0])) and match[1] in FEMALE + MALE
        )
    )
    return f"files named like {found[0]}" if found else None


def prepare(root: Path, *, engine: Engine = SERIAL) -> Manifest:
    """Read every speaker below `root`.

    Parameters
    ----------
    root : Path
        The folder of a part, such as ``emotional-to-emotional``, or any folder above.
    engine : Engine
        Where the audio's headers are read.

    Returns
    -------
    Manifest
        One row per ``<speaker>/wav/<speaker>NNNNN.wav``; `release` is the part. Audio
        elsewhere in the database is listed as `unlisted`.

    Raises
    ------
    CorpusError
        If no utterance is found, two files of one name differ or a text is undecodable.
    """
    collector = Collector("emotiontts", root, corpus="emotiontts", language="ko", engine=engine)
    n_without_text, parts = 0, set()
    for stem, paths in paths_by_stem(audio_files(root)).items():
        name = _NAME.fullmatch(stem)
        speaker = name[1] if name else ""
        if name is None or speaker not in FEMALE + MALE:
            collector.leave_unlisted(paths)
            continue
        path = collector.leave_out_copies(stem, paths)
        number = int(name[2])
        if not 1 <= number <= 100 * len(BLOCKS):
            detail = f"outside 1–{100 * len(BLOCKS)}"
            collector.leave_out(stem, "number belongs to no emotion", detail)
            continue
        text = _read_text(path)
        n_without_text += text is None
        parts.add(PARTS[speaker[:2]])
        collector.add(
            id=stem,
            path=str(path),
            label=BLOCKS[(number - 1) // 100],
            speaker=speaker,
            gender="female" if speaker in FEMALE else "male",
            release=PARTS[speaker[:2]],
            text=text,
        )
    collector.note(
        "Labels by number: 1–100 neutral, 101–200 happiness, 201–300 sadness, 301–400 angry. "
        "The README of the corpus swaps the last two, against its own texts and voices."
    )
    if PARTS["em"] in parts:
        collector.note(
            "In plain-to-emotional the sentences are plain and cannot show which of sadness and "
            "angry is which; its numbers are taken to mean what they mean in the other part."
        )
    if n_without_text:
        collector.note(f"{n_without_text} utterances have no transcript and no script.")
    return collector.manifest(label_policy="number block", grouping="speaker")


def _read_text(audio: Path) -> str | None:
    # The transcript is what was said, the script what was to be said.
    for folder in ("transcript", "script"):
        path = audio.parent.parent / folder / f"{audio.stem}.txt"
        if path.is_file():
            text = decode(path.read_bytes(), str(path)).strip()
            if text:
                return text
    return None
