"""K-EmoCon: Korean debates in pairs, rated for valence and arousal every five seconds.

Source
    https://doi.org/10.5281/zenodo.3931963, on application to its authors, who restrict it. Park
    et al., "K-EmoCon, a multimodal sensor dataset for continuous emotion recognition in
    naturalistic conversations", Scientific Data 7: 293, 2020.
Size
    32 people in 16 debates of about ten minutes; 173 minutes of sound, of which a row is five
    seconds of one person's ratings.
Labels
    Valence and arousal, 1 to 5, by the people themselves, by their partner and by five
    observers (aggregated). koser's classes are cut from one of them: 1–2, 3, 4–5.
Layout
    ``debate_audios/p1.p2.wav``; ``emotion_annotations/self_annotations/P1.self.csv``,
    ``partner_annotations/P1.partner.csv``, ``aggregated_external_annotations/P1.external.csv``
    and ``external_annotations/P1.R1.csv``; ``seconds`` is the end of the five. They are taken
    to count from the start of the recording, as public code does; the corpus's own README could
    not be checked.

A recording holds both debaters, and who speaks when is not annotated: the voice in a row may be
the partner's. Both are therefore one group, the debate, and never apart in a split.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from koser.audio.listing import audio_files, find_files
from koser.data.corpora.archives import nothing_found
from koser.data.corpora.collecting import (
    Collector,
    canonical_gender,
    decode,
    finite_number,
    have_same_bytes,
    paths_by_stem,
    read_bytes,
    whole_years,
)
from koser.data.corpora.survey import Survey
from koser.data.corpora.votes import check_policy
from koser.data.manifest import Manifest
from koser.engines.engine import Engine
from koser.engines.local import SERIAL
from koser.errors import ConfigError, CorpusError

LabelPolicy = Literal["valence", "arousal"]
Annotator = Literal["external", "partner", "self"]

CLASSES = {
    "valence": ("negative", "neutral", "positive"),
    "arousal": ("low", "medium", "high"),
}
WINDOW = 5.0  # seconds that a rating is about

_DEBATE = re.compile(r"p(\d+)\.p(\d+)", re.IGNORECASE)
_TABLES = {
    annotator: re.compile(rf"P(\d+)\.{annotator}\.csv", re.IGNORECASE)
    for annotator in get_args(Annotator)
}
_OBSERVER = re.compile(r"P(\d+)\.R(\d+)\.csv", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Rating:
    """One row of an annotation table: seconds at its end, and the ratings, None where unusable."""

    source: str
    end: float | None
    valence: float | None
    arousal: float | None


def recognise(survey: Survey) -> str | None:
    """Say why `survey` looks like this corpus; None if it does not."""
    found = [name for pattern in _TABLES.values() for name in survey.matching(pattern.fullmatch)]
    found += survey.matching(lambda name: _DEBATE.fullmatch(name.rpartition(".")[0]))
    return f"files named like {found[0]}" if found else None


def prepare(
    root: Path,
    *,
    labels: LabelPolicy = "valence",
    annotator: Annotator = "external",
    engine: Engine = SERIAL,
) -> Manifest:
    """Read the debates below `root`.

    Parameters
    ----------
    root : Path
        Folder with ``debate_audios`` and ``emotion_annotations``, or any folder above.
    labels : {"valence", "arousal"}
        What the classes are cut from: `CLASSES`, for 1–2, 3 and 4–5.
    annotator : {"external", "partner", "self"}
        Whose ratings: what five observers saw, what the partner saw, or what the person felt.
    engine : Engine
        Where the audio's headers are read.

    Returns
    -------
    Manifest
        One row per person and five seconds, with `valence` and `arousal`. With the
        observers, `votes` holds the class that each of them gave.

    Raises
    ------
    ConfigError
        If `labels` or `annotator` is unknown.
    CorpusError
        If there is no annotation table or no row is left.
    """
    check_policy(labels, None, policies=get_args(LabelPolicy), n_raters=1)
    if annotator not in _TABLES:
        raise ConfigError(f"Unknown annotator '{annotator}'. Choose one of: {', '.join(_TABLES)}.")
    collector = Collector("kemocon", root, corpus="kemocon", language="ko", engine=engine)
    tables = find_files(root, (".csv",))
    ratings = {
        str(person): _read(path)
        for (person,), path in _distinct(tables, _TABLES[annotator]).items()
    }
    if not ratings:
        raise nothing_found(
            f"No annotations by '{annotator}' of K-EmoCon below '{root}' (looked for "
            f"P1.{annotator}.csv and so on).",
            root,
            "Unpack emotion_annotations.tar.gz there.",
        )
    votes = _votes(tables, labels) if annotator == "external" else {}
    people = _people(tables)
    debates = _debates(root, collector)
    for person, rows in ratings.items():
        debate = debates.get(person)
        if debate is None:
            detail = f"{len(rows)} rows"
            collector.leave_out(f"P{person}", "person without debate recording", detail)
            continue
        for row in rows:
            _add(collector, person, row, debate, labels, people, votes)
    collector.note(
        f"Classes of {labels}: {', '.join(CLASSES[labels])} for 1–2, 3 and 4–5, as rated by "
        f"'{annotator}'. A recording holds both debaters, and who speaks when is not annotated: "
        f"the voice in a row may be the partner's."
    )
    return collector.manifest(label_policy=f"{labels} by {annotator}", grouping="group(debate)")


def _distinct(tables: Sequence[Path], pattern: re.Pattern[str]) -> Mapping[tuple[int, ...], Path]:
    """Tables by the numbers in their names, in order; copies of one count once."""
    found: dict[tuple[int, ...], Path] = {}
    for path in tables:
        name = pattern.fullmatch(path.name)
        if name is None:
            continue
        first = found.setdefault(tuple(int(number) for number in name.groups()), path)
        if first != path and not have_same_bytes([first, path]):
            raise CorpusError(
                f"Two tables are named '{path.name}' and differ: '{first}' and '{path}'. "
                f"Keep the right one."
            )
    return dict(sorted(found.items()))


def _read(path: Path) -> list[Rating]:
    text = decode(read_bytes(path), str(path))
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns = [name.strip() for name in reader.fieldnames or ()]
    missing = [name for name in ("seconds", "valence", "arousal") if name not in columns]
    if missing:
        raise CorpusError(
            f"'{path}' has no column {', '.join(missing)} (it has: {', '.join(columns)}). Is it "
            f"an annotation table of K-EmoCon?"
        )
    reader.fieldnames = columns
    return [
        Rating(
            f"{path.name}, row {number}",
            finite_number((row["seconds"] or "").strip()),
            _on_scale(row["valence"]),
            _on_scale(row["arousal"]),
        )
        for number, row in enumerate(reader, start=1)
    ]


def _on_scale(text: str | None) -> float | None:
    number = finite_number((text or "").strip())
    return number if number is not None and 1 <= number <= 5 else None


def _class(value: float, labels: str) -> str:
    return CLASSES[labels][int(value > 2) + int(value > 3)]


def _votes(tables: Sequence[Path], labels: str) -> Mapping[tuple[str, float], list[str]]:
    """Class that each observer gave to a person and second, in the observers' order."""
    votes: dict[tuple[str, float], list[str]] = {}
    for (person, _), path in _distinct(tables, _OBSERVER).items():
        for row in _read(path):
            value = getattr(row, labels)
            if row.end is not None and value is not None:
                votes.setdefault((str(person), row.end), []).append(_class(value, labels))
    return votes


def _people(tables: Sequence[Path]) -> Mapping[str, Mapping[str, str]]:
    """Rows of ``subjects.csv`` by person."""
    people = {}
    for path in tables:
        if path.name.casefold() == "subjects.csv":
            text = decode(read_bytes(path), str(path))
            for row in csv.DictReader(io.StringIO(text, newline="")):
                cells = {key.strip().casefold(): (cell or "") for key, cell in row.items() if key}
                people[cells.get("pid", "").strip()] = cells
    return people


def _debates(root: Path, collector: Collector) -> Mapping[str, tuple[str, Path]]:
    """Name and recording of each person's debate."""
    debates: dict[str, tuple[str, Path]] = {}
    for stem, paths in paths_by_stem(audio_files(root)).items():
        name = _DEBATE.fullmatch(stem)
        if name is None:
            collector.leave_unlisted(paths)
            continue
        path = collector.leave_out_copies(stem, paths)
        for person in name.groups():
            debates[str(int(person))] = (stem.casefold(), path)
    return debates


def _add(
    collector: Collector,
    person: str,
    row: Rating,
    debate: tuple[str, Path],
    labels: str,
    people: Mapping[str, Mapping[str, str]],
    votes: Mapping[tuple[str, float], list[str]],
) -> None:
    value = row.valence if labels == "valence" else row.arousal
    if row.end is None or row.end < WINDOW:
        collector.leave_out(row.source, "unusable time")
        return
    if value is None:
        collector.leave_out(row.source, f"no {labels}")
        return
    details = people.get(person, {})
    collector.add(
        id=f"P{person}_{row.end - WINDOW:g}",
        path=str(debate[1]),
        start=row.end - WINDOW,
        end=row.end,
        label=_class(value, labels),
        votes=[{"label": vote, "intensity": None} for vote in votes.get((person, row.end), ())]
        or None,
        valence=row.valence,
        arousal=row.arousal,
        speaker=f"P{person}",
        group=debate[0],
        session=debate[0],
        gender=canonical_gender(details.get("gender") or details.get("sex") or ""),
        age=whole_years(details.get("age", "")),
    )
