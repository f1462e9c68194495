"""AI Hub 259, 「감정 분류용 데이터셋」: Korean sentences acted on video in seven emotions.

Source
    https://aihub.or.kr, data set 259. Each user needs an agreement of their own, which forbids
    passing on the data or what is derived from it.
Size
    About a hundred people, 350 sentences each, as ``.m2ts`` video.
Labels
    By sentence number, blocks of 50 from 1: happiness, surprise, neutral, fear, disgust, angry,
    sadness. The blocks are those that public code uses for this data set; the AI Hub's own
    description could not be checked.
Layout
    ``PPP-SSS.wav``: person and sentence. The videos are read once their sound has been taken
    out, under the same name: ``ffmpeg -i 000-001.m2ts -vn -ac 1 000-001.wav``.

The sentences are in no file that is read, so no row has a text. Each sentence belongs to one
emotion and is read by all people: a speaker-disjoint score also measures what is said.
"""

from __future__ import annotations

import re
from pathlib import Path

from koser.audio.listing import audio_files, find_files
from koser.data.corpora.collecting import Collector, paths_by_stem
from koser.data.corpora.survey import Survey
from koser.data.manifest import Manifest
from koser.engines.engine import Engine
from koser.engines.local import SERIAL
from koser.errors import CorpusError

BLOCKS = ("happiness", "surprise", "neutral", "fear", "disgust", "angry", "sadness")
BLOCK_LENGTH = 50

_NAME = re.compile(r"(\d{3})-(\d{3})")
_VIDEO = (".m2ts", ".mts")


def recognise(survey: Survey) -> str | None:
    """Say why `survey` looks like this corpus; None if it does not."""
    found = survey.matching(
        lambda name: (
            _NAME.fullmatch(name.rpartition(".")[0])
            and name.lower().endswith((*_VIDEO, ".wav", ".flac"))
        )
    )
    return f"files named like {found[0]} (person-sentence)" if found else None


def prepare(root: Path, *, engine: Engine = SERIAL) -> Manifest:
    """Read the recordings below `root`.

    Parameters
    ----------
    root : Path
        Folder with the sound of the videos, at any depth.
    engine : Engine
        Where the audio's headers are read.

    Returns
    -------
    Manifest
        One row per recording; the person is the speaker.

    Raises
    ------
    CorpusError
        If only videos are there, no recording is found or two of one name differ.
    """
    collector = Collector("aihub259", root, corpus="aihub259", language="ko", engine=engine)
    n_rows = 0
    for stem, paths in paths_by_stem(audio_files(root)).items():
        name = _NAME.fullmatch(stem)
        if name is None:
            collector.leave_unlisted(paths)
            continue
        n_rows += 1
        path = collector.leave_out_copies(stem, paths)
        number = int(name[2])
        if not 1 <= number <= BLOCK_LENGTH * len(BLOCKS):
            detail = f"outside 1–{BLOCK_LENGTH * len(BLOCKS)}"
            collector.leave_out(stem, "number belongs to no emotion", detail)
            continue
        label = BLOCKS[(number - 1) // BLOCK_LENGTH]
        collector.add(id=stem, path=str(path), label=label, speaker=name[1])
    if not n_rows:
        _refuse_videos(root)
    collector.note(
        "Labels by sentence number, 50 each: "
        + ", ".join(BLOCKS)
        + ". Each sentence belongs to one emotion, and none has a text here: a speaker-disjoint "
        "score also measures what is said."
    )
    return collector.manifest(label_policy="number block", grouping="speaker")


def _refuse_videos(root: Path) -> None:
    videos = find_files(root, _VIDEO)
    if videos:
        raise CorpusError(
            f"{len(videos)} videos and no sound of AI Hub 259 below '{root}'. Take the sound out, "
            f"in that folder: find . -iname '*.m2ts' -exec sh -c 'ffmpeg -nostdin -i \"$1\" -vn "
            f'-ac 1 "${{1%.*}}.wav"\' _ {{}} \\;'
        )
