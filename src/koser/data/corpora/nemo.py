"""nEMO: acted Polish emotional speech in six emotions.

Source
    https://github.com/amu-cai/nEMO, CC BY-NC-SA 4.0. Christop, "nEMO: Dataset of Emotional
    Speech in Polish", LREC-COLING 2024.
Size
    4,481 recordings of nine actors, about three hours; 24 kHz, mono. The same 90 sentences in
    all emotions.
Labels
    The seven of koser without disgust.
Layout
    ``samples/WR0_surprised_64.wav``: speaker, emotion, sentence; ``data.tsv`` has texts, genders
    and ages. Its ids of speakers have blanks before them, and its quotation marks are text.
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
    canonical_gender,
    decode,
    paths_by_stem,
    read_bytes,
    whole_years,
)
from koser.data.corpora.survey import Survey
from koser.data.manifest import Manifest
from koser.engines.engine import Engine
from koser.engines.local import SERIAL
from koser.labels import canonical_label

EMOTIONS = ("anger", "fear", "happiness", "neutral", "sadness", "surprised")

_NAME = re.compile(rf"([A-Z]{{2}}\d)_({'|'.join(EMOTIONS)})_(\d+)")


def recognise(survey: Survey) -> str | None:
    """Say why `survey` looks like this corpus; None if it does not."""
    found = survey.matching(lambda name: _NAME.fullmatch(name.rpartition(".")[0]))
    return f"files named like {found[0]}" if found else None


def prepare(root: Path, *, engine: Engine = SERIAL) -> Manifest:
    """Read the recordings below `root`.

    Parameters
    ----------
    root : Path
        Folder with ``samples`` and ``data.tsv``, or any folder above.
    engine : Engine
        Where the audio's headers are read.

    Returns
    -------
    Manifest
        One row per recording.

    Raises
    ------
    CorpusError
        If no recording is found or two of one name differ.
    """
    collector = Collector("nemo", root, corpus="nemo", language="pl", engine=engine)
    details = _details(root)
    n_unknown = 0
    for stem, paths in paths_by_stem(audio_files(root)).items():
        name = _NAME.fullmatch(stem)
        if name is None:
            collector.leave_unlisted(paths)
            continue
        path = collector.leave_out_copies(stem, paths)
        row = details.get(stem, {})
        n_unknown += not row
        collector.add(
            id=stem,
            path=str(path),
            label=canonical_label(name[2]),
            speaker=name[1],
            gender=canonical_gender(row.get("gender", "")),
            age=whole_years(row.get("age", "")),
            text=row.get("raw_text") or None,
        )
    if n_unknown:
        collector.note(f"{n_unknown:,} recordings are not in data.tsv, and so have no text.")
    return collector.manifest(label_policy="scripted emotion", grouping="speaker")


def _details(root: Path) -> Mapping[str, Mapping[str, str]]:
    details = {}
    for path in find_files(root, (".tsv",)):
        text = decode(read_bytes(path), str(path))
        reader = csv.DictReader(
            io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE
        )
        for row in reader:
            cells = {key: cell.strip() for key, cell in row.items() if isinstance(cell, str)}
            if "file_id" in cells:
                details[cells["file_id"].removesuffix(".wav")] = cells
    return details
