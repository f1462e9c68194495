"""Hi,KIA: a Korean wake-up word in four emotions.

Source
    https://doi.org/10.5281/zenodo.7091465 (``hi_kia_1.0.tar.gz``); read the licence there. Kim,
    Doh, Lee, Jeon, Nam & Suk, "Hi,KIA: A Speech Emotion Recognition Dataset for Wake-Up
    Words", APSIPA ASC 2022.
Size
    488 utterances of 8 voice actors, F5–F8 and M1–M4, who say "Hi, KIA" in 12 scenes. Of 576
    recordings those that no listener understood as intended were taken out.
Labels
    The last letter of the name: a angry, h happiness, s sadness, n neutral.
Layout
    ``wav/F5_S01_1_a.wav``: speaker, scene, trial, emotion; ``split/F5_eval.csv``: the test part
    of that speaker's fold, one column an emotion. Where these tables are there, they must
    agree with the names; a letter of another release is only read with their help.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path

from koser.audio.listing import audio_files, find_files
from koser.data.corpora.collecting import (
    Collector,
    decode,
    paths_by_stem,
    read_bytes,
)
from koser.data.corpora.survey import Survey
from koser.data.manifest import Manifest
from koser.engines.engine import Engine
from koser.engines.local import SERIAL
from koser.labels import canonical_label

EMOTIONS = {"a": "angry", "h": "happiness", "s": "sadness", "n": "neutral"}
TEXT = "Hi, KIA"

_NAME = re.compile(r"([FM]\d)_(S\d+)_(\d+)_([a-z])")
_TABLE = re.compile(r"[FM]\d_eval\.csv")


def recognise(survey: Survey) -> str | None:
    """Say why `survey` looks like this corpus; None if it does not."""
    found = survey.matching(lambda name: _NAME.fullmatch(name.rpartition(".")[0]))
    return f"files named like {found[0]}" if found else None


def prepare(root: Path, *, engine: Engine = SERIAL) -> Manifest:
    """Read the recordings below `root`.

    Parameters
    ----------
    root : Path
        The unpacked ``hi_kia`` folder, or any folder above.
    engine : Engine
        Where the audio's headers are read.

    Returns
    -------
    Manifest
        One row per recording; `session` is the scene.

    Raises
    ------
    CorpusError
        If no recording is found or two of one name differ.
    """
    collector = Collector("hikia", root, corpus="hikia", language="ko", engine=engine)
    listed = _labels_of_splits(root)
    for stem, paths in paths_by_stem(audio_files(root)).items():
        name = _NAME.fullmatch(stem)
        if name is None:
            collector.leave_unlisted(paths)
            continue
        path = collector.leave_out_copies(stem, paths)
        by_name, by_table = EMOTIONS.get(name[4]), listed.get(stem)
        label = by_name or by_table
        if label is None:
            collector.leave_out(stem, "unknown emotion letter", name[4])
        elif by_table not in (None, label):
            detail = f"{label} by name, {by_table} in the split"
            collector.leave_out(stem, "conflicting labels", detail)
        else:
            collector.add(
                id=stem,
                path=str(path),
                label=label,
                speaker=name[1],
                session=name[2],
                gender="female" if name[1][0] == "F" else "male",
                text=TEXT,
            )
    return collector.manifest(label_policy="scripted emotion", grouping="speaker")


def _labels_of_splits(root: Path) -> Mapping[str, str]:
    """Label of each recording in the test parts of the eight folds."""
    labels = {}
    for path in find_files(root, (".csv",)):
        if not _TABLE.fullmatch(path.name):
            continue
        text = decode(read_bytes(path), str(path))
        for row in csv.DictReader(io.StringIO(text, newline="")):
            marked = [
                column
                for column, cell in row.items()
                if column != "fname" and isinstance(cell, str) and cell.strip() in ("1", "1.0")
            ]
            if row.get("fname") and len(marked) == 1:
                labels[Path(row["fname"].strip()).stem] = canonical_label(marked[0])
    return labels
