"""AI Hub 466, 「감성 및 발화 스타일별 음성합성 데이터」: read Korean speech in seven emotions.

Source
    https://aihub.or.kr, data set 466. Each user needs an agreement of their own, which forbids
    passing on the data or what is derived from it, manifests included.
Size
    9,182 scripts of the emotion part, each tied to one emotion and read by about 32 people:
    split by script too. Other parts (style, character, emotion × style) are not read.
Labels
    기쁨 슬픔 분노 불안 상처 당황 중립: happiness, sadness, angry, anxiety, hurt, embarrassment,
    neutral, by the folder and again in the name and in the label file; all must agree.
Layout
    ``…/1.감정/1.기쁨/0001_G1A3E1S0C0_ABC/0001_G1A3E1S0C0_ABC_000001.wav`` and, in a parallel
    tree, a JSON file of the same name: ``전사정보.OrgLabelText``, ``화자정보.Emotion``.
    A person is the first and last part of the folder's name (``0001_ABC``): the parts between
    change with the emotion. What the digits after ``G`` and ``A`` mean is not read: gender and
    age come from the label file.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from koser.audio.listing import audio_files, find_files
from koser.data.corpora.collecting import (
    Collector,
    canonical_gender,
    paths_by_stem,
    read_json,
    whole_years,
)
from koser.data.corpora.survey import Survey
from koser.data.manifest import Manifest
from koser.engines.engine import Engine
from koser.engines.local import SERIAL
from koser.errors import CorpusError, LabelError
from koser.labels import canonical_label

# Digit after E in a name -> emotion; the folders are numbered alike.
EMOTIONS = {
    "1": "happiness",
    "2": "sadness",
    "3": "angry",
    "4": "anxiety",
    "5": "hurt",
    "6": "embarrassment",
    "7": "neutral",
}

_NAME = re.compile(r"(\d{4})_G\dA\dE(\d)S(\d)C(\d)_([A-Za-z]+)_(\d+)")
_FOLDER = re.compile(r"([1-7])\.(\S+)")


def recognise(survey: Survey) -> str | None:
    """Say why `survey` looks like this corpus; None if it does not."""
    found = survey.matching(lambda name: _NAME.fullmatch(name.rpartition(".")[0]))
    return f"files named like {found[0]}" if found else None


def prepare(root: Path, *, engine: Engine = SERIAL) -> Manifest:
    """Read the emotion part below `root`.

    Parameters
    ----------
    root : Path
        Folder with ``원천데이터`` and ``라벨링데이터``, or any folder above or below that holds
        recordings; without label files texts, genders and ages are missing.
    engine : Engine
        Where the audio's headers are read.

    Returns
    -------
    Manifest
        One row per recording of the emotion part; `release` is ``Training`` or
        ``Validation`` where the path says so. Recordings of other parts are counted in a note.

    Raises
    ------
    CorpusError
        If no recording is found or two of one name differ.
    LabelError
        If a label file names another emotion than the seven.
    """
    collector = Collector("aihub466", root, corpus="aihub466", language="ko", engine=engine)
    label_files = paths_by_stem(find_files(root, (".json",)))
    n_elsewhere = n_unlabelled = 0
    for stem, paths in paths_by_stem(audio_files(root)).items():
        name = _NAME.fullmatch(stem)
        if name is None:
            collector.leave_unlisted(paths)
            continue
        if name[2] not in EMOTIONS or (name[3], name[4]) != ("0", "0"):
            n_elsewhere += len(paths)
            continue
        path = collector.leave_out_copies(stem, paths)
        try:
            details = _details(label_files.get(stem, ()))
        except CorpusError as error:
            collector.leave_out(stem, "unreadable label file", str(error))
            continue
        n_unlabelled += not details
        stated = _stated(path, EMOTIONS[name[2]], details)
        if len(stated) > 1:
            collector.leave_out(stem, "conflicting labels", ", ".join(sorted(stated)))
            continue
        collector.add(
            id=stem,
            path=str(path),
            label=EMOTIONS[name[2]],
            speaker=f"{name[1]}_{name[5]}",
            release=_release(path.relative_to(root)),
            gender=canonical_gender(details.get("Gender", "")),
            age=whole_years(details.get("Age", "")),
            text=details.get("text"),
        )
    if n_elsewhere:
        collector.note(
            f"{n_elsewhere:,} recordings of other parts (style, character) are not read."
        )
    if n_unlabelled:
        collector.note(f"{n_unlabelled:,} recordings have no label file, and so no text.")
    return collector.manifest(label_policy="scripted emotion", grouping="speaker")


def _details(paths: Sequence[Path]) -> Mapping[str, Any]:
    """What the label file says of speaker and text; empty where there is none."""
    if not paths:
        return {}
    content = read_json(paths[0])
    if not isinstance(content, dict):
        raise CorpusError(f"'{paths[0]}' holds no label: it is no JSON object.")
    speaker, transcript = (
        part if isinstance(part := content.get(key), dict) else {}
        for key in ("화자정보", "전사정보")
    )
    text = str(transcript.get("OrgLabelText") or transcript.get("TransLabelText") or "").strip()
    return {**speaker, "text": text or None}


def _stated(path: Path, by_name: str, details: Mapping[str, Any]) -> set[str]:
    """Every emotion that name, folder and label file give to a recording."""
    stated = {by_name}
    for part in path.parent.parts:
        folder = _FOLDER.fullmatch(unicodedata.normalize("NFC", part))
        if folder and canonical_label(folder[2]) in EMOTIONS.values():
            stated.add(canonical_label(folder[2]))
    in_file = str(details.get("Emotion") or "").strip()
    if in_file and in_file != "N/A":
        stated.add(_known(canonical_label(in_file), path))
    return stated


def _known(label: str, path: Path) -> str:
    if label not in EMOTIONS.values():
        raise LabelError(
            f"The label file of '{path}' says '{label}', which AI Hub 466 does not have. Known are "
            f"{', '.join(EMOTIONS.values())} and their aliases. Correct it."
        )
    return label


def _release(path: Path) -> str | None:
    for part in path.parts:
        for name in ("Training", "Validation"):
            if name in part:
                return name
    return None
