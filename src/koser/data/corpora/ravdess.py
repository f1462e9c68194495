"""RAVDESS: English acted emotional speech in eight emotions.

Source
    Livingstone & Russo, "The Ryerson Audio-Visual Database of Emotional Speech and Song
    (RAVDESS)", PLoS ONE 13(5): e0196391, 2018. CC BY-NC-SA 4.0.
Size
    1,440 speech files of 24 actors, odd numbers male: 192 per emotion, neutral 96.
Labels
    The seven of koser and calm. File names are ``MM-VV-EE-II-TT-RR-AA``: modality, vocal
    channel, emotion, intensity, sentence, repetition, actor. Intensity and repetition have
    no column and stay readable in the id.
"""

from __future__ import annotations

import re
from pathlib import Path

from koser.audio.listing import audio_files
from koser.data.corpora.collecting import Collector, have_same_bytes, paths_by_stem
from koser.data.corpora.survey import Survey
from koser.data.manifest import Manifest
from koser.engines.engine import Engine
from koser.engines.local import SERIAL

EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happiness",
    "04": "sadness",
    "05": "angry",
    "06": "fear",
    "07": "disgust",
    "08": "surprise",
}
SENTENCES = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}

# Two takes of the official release that are the same bytes.
IDENTICAL_PAIR = ("03-01-03-01-02-01-07", "03-01-03-01-02-02-07")

_NAME = re.compile(r"(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)")


def recognise(survey: Survey) -> str | None:
    """Say why `survey` looks like this corpus; None if it does not."""
    found = survey.matching(lambda name: _NAME.fullmatch(name.rpartition(".")[0]))
    return f"files named like {found[0]}" if found else None


def prepare(root: Path, *, engine: Engine = SERIAL) -> Manifest:
    """Read the speech files below `root`.

    Parameters
    ----------
    root : Path
        Folder with the ``Actor_AA`` folders, or any folder above. Audio may have been
        converted to another format, its names unchanged.
    engine : Engine
        Where the audio's headers are read.

    Returns
    -------
    Manifest
        One row per speech file. Song, video and files that are copied into a second folder
        (as in the widespread Kaggle copy) are left out and reported.

    Raises
    ------
    CorpusError
        If no utterance is found or two files of one name differ.
    """
    collector = Collector("ravdess", root, corpus="ravdess", language="en", engine=engine)
    groups = paths_by_stem(audio_files(root))
    for stem, paths in groups.items():
        name = _NAME.fullmatch(stem)
        if name is None:
            collector.leave_unlisted(paths)
            continue
        path = collector.leave_out_copies(stem, paths)
        modality, channel, emotion, _, sentence, _, actor = name.groups()
        if defect := _defect(modality, channel, emotion, sentence):
            collector.leave_out(stem, defect, str(path))
            continue
        collector.add(
            id=stem,
            path=str(path),
            label=EMOTIONS[emotion],
            speaker=f"Actor_{actor}",
            gender="male" if int(actor) % 2 else "female",
            text=SENTENCES[sentence],
        )
    pair = [groups[stem][0] for stem in IDENTICAL_PAIR if stem in groups]
    if len(pair) == 2 and have_same_bytes(pair):
        collector.note(
            f"{IDENTICAL_PAIR[0]} and {IDENTICAL_PAIR[1]} are the same bytes, as in the official "
            f"release; both are kept."
        )
    return collector.manifest(label_policy="scripted emotion", grouping="speaker")


def _defect(modality: str, channel: str, emotion: str, sentence: str) -> str:
    if modality != "03":
        return "video"
    if channel != "01":
        return "song"
    if emotion not in EMOTIONS:
        return "unknown emotion number"
    return "" if sentence in SENTENCES else "unknown sentence number"
