"""AI Hub 637, 「감정 음성 데이터셋」: eight Korean voice actors, sixteen emotions and manners.

Source
    https://aihub.or.kr, data set 637. Each user needs an agreement of their own, which forbids
    passing on the data or what is derived from it.
Size
    8 actors, 18,960 utterances each, the same sentences; 48 kHz. The recordings of 501 lay
    people that come with it carry no labels and are listed as audio without a row.
Labels
    Sixteen, among them the seven under other names (``JOY``, ``UNPLEASURE``); the manifest
    keeps all sixteen. ``UNPLEASURE`` is not taken for disgust.
Layout
    ``F0001/…/F0001_000001.wav`` and a ``script.txt`` an actor. Of each utterance it has a line
    with id, emotion and kind (``F0001_000001 NEUTRAL #지문``), then the sentence with marks of
    its breaks (``||HL``), then its pronunciation. As public code reads it; the AI Hub's own
    description could not be checked.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from koser.audio.listing import audio_files, find_files
from koser.data.corpora.archives import nothing_found
from koser.data.corpora.collecting import (
    Collector,
    decode,
    have_same_bytes,
    paths_by_stem,
    read_bytes,
)
from koser.data.corpora.survey import Survey
from koser.data.manifest import Manifest
from koser.engines.engine import Engine
from koser.engines.local import SERIAL
from koser.errors import CorpusError, LabelError
from koser.labels import canonical_label

EMOTIONS = (
    *("NEUTRAL", "SAD", "ANGRY", "JOY", "SURPRISE", "FEAR", "UNPLEASURE", "KIND"),
    *("TEASE", "DRY", "SERIOUS", "DOUBT", "ANXIOUS", "SHY", "HURRY", "HESITATE"),
)

_HEAD = re.compile(r"(([FM])\d{4})_(\d+)\s+([A-Za-z]+)(?:\s+#\s*(\S.*))?")
_ID = re.compile(r"[FM]\d{4}_\d{6}")
_BREAK = re.compile(r"\|+[A-Z]*")


@dataclass(frozen=True, slots=True)
class Line:
    """One utterance of a ``script.txt``; `emotion` is blank where only its id can be read."""

    source: str
    name: str
    speaker: str
    emotion: str
    kind: str | None
    text: str | None


def recognise(survey: Survey) -> str | None:
    """Say why `survey` looks like this corpus; None if it does not."""
    found = survey.matching(lambda name: _ID.fullmatch(name.rpartition(".")[0]))
    has_script = survey.matching(lambda name: name.casefold() == "script.txt")
    if not found or not has_script:
        return None
    return f"a script.txt and files named like {found[0]}"


def prepare(root: Path, *, engine: Engine = SERIAL) -> Manifest:
    """Read the actors below `root`.

    Parameters
    ----------
    root : Path
        Folder with the unpacked actors, each with its ``script.txt``.
    engine : Engine
        Where the audio's headers are read.

    Returns
    -------
    Manifest
        One row per utterance of a script; `release` is the kind of text (``지문``: narration)
        where the script names one.

    Raises
    ------
    CorpusError
        If there is no script or no row is left.
    LabelError
        If a script has an emotion that is none of the sixteen.
    """
    collector = Collector("aihub637", root, corpus="aihub637", language="ko", engine=engine)
    scripts = [path for path in find_files(root, (".txt",)) if path.name.casefold() == "script.txt"]
    if not scripts:
        raise nothing_found(
            f"No script.txt of AI Hub 637 below '{root}'.",
            root,
            "Unpack the actors' archives there; the lay people's recordings have no labels and "
            "cannot be used.",
        )
    lines = [line for script in scripts for line in read_script(script)]
    _refuse_unknown_labels(lines)
    audio = paths_by_stem(audio_files(root))
    listed = {line.name for line in lines}
    for stem, paths in audio.items():
        if stem not in listed:
            collector.leave_unlisted(paths)
    for line in lines:
        paths = audio.get(line.name, [])
        if not line.emotion:
            collector.leave_out(line.name, "malformed line", line.source)
        elif not paths:
            collector.leave_out(line.name, "no audio file", line.source)
        elif not have_same_bytes(paths):
            where = ", ".join(f"'{path}'" for path in paths)
            collector.leave_out(line.name, "different audio files of one name", where)
        else:
            collector.add(
                id=line.name,
                path=str(paths[0]),
                label=canonical_label(line.emotion),
                speaker=line.speaker,
                release=line.kind,
                gender="female" if line.speaker[0] == "F" else "male",
                text=line.text,
            )
    return collector.manifest(label_policy="scripted emotion", grouping="speaker")


def read_script(path: Path) -> Iterator[Line]:
    """Yield the utterances of one ``script.txt``.

    Raises
    ------
    CorpusError
        If it cannot be read, is in no known encoding or holds no utterance.
    """
    lines = decode(read_bytes(path), str(path)).splitlines()
    n_found = 0
    for number, line in enumerate(lines):
        source = f"{path.parent.name}/{path.name}, line {number + 1}"
        head = _HEAD.fullmatch(line.strip())
        if head is None:
            if name := _ID.match(line.strip()):
                yield Line(source, name[0], "", "", None, None)
            continue
        n_found += 1
        below = lines[number + 1] if number + 1 < len(lines) else ""
        yield Line(
            source=source,
            name=f"{head[1]}_{head[3]}",
            speaker=head[1],
            emotion=head[4].upper(),
            kind=head[5],
            text=" ".join(_BREAK.sub(" ", below).split()) or None,
        )
    if not n_found:
        raise CorpusError(
            f"'{path}' has no line such as 'F0001_000001 NEUTRAL #지문'. Is it a script of AI "
            f"Hub 637?"
        )


def _refuse_unknown_labels(lines: Sequence[Line]) -> None:
    unknown = Counter(line.emotion for line in lines if line.emotion not in ("", *EMOTIONS))
    if unknown:
        counts = ", ".join(f"'{label}' ({count} rows)" for label, count in sorted(unknown.items()))
        raise LabelError(
            f"Labels that AI Hub 637 does not have: {counts}. Known are {', '.join(EMOTIONS)}. "
            f"Correct them in script.txt."
        )
