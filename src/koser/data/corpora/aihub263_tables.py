"""The CSV files of AI Hub 263: which there are, and how their rows are read."""

from __future__ import annotations

import csv
import io
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from koser.data.corpora.collecting import decode
from koser.data.corpora.votes import Vote
from koser.errors import CorpusError
from koser.labels import canonical_label

N_RATERS = 5


@dataclass(frozen=True)
class Release:
    """One of the corpus's three releases, as the AI Hub distributes it.

    Attributes
    ----------
    name : str
        Its name in the manifest.
    tables, archives : tuple[str, ...]
        Names of its CSV file and its zip, newer first.
    n_rows : int
        Rows of the official CSV file.
    n_orphans : int
        Rows without audio, and audio files without a row, in the official release.
    """

    name: str
    tables: tuple[str, ...]
    archives: tuple[str, ...]
    n_rows: int
    n_orphans: int = 0


RELEASES = (
    Release(
        "4차년도", ("4차년도.csv", "4차_14606.csv"), ("4차년도.zip", "4차_wav.zip"), 14_606, 16
    ),
    Release("5차년도", ("5차년도.csv", "5차_10011.csv"), ("5차년도.zip", "5차_wav.zip"), 10_011),
    Release(
        "5차년도_2차",
        ("5차년도_2차.csv", "5차년도_2차_19374.csv"),
        ("5차년도_2차.zip", "5차년도_2차_19374.zip"),
        19_374,
    ),
)

# Headings without white space: the official file says "4번감정세기", repaired copies
# "4번 감정세기", and all files "3번 감정세기".
_RATERS = [(f"{n}번감정", f"{n}번감정세기") for n in range(1, N_RATERS + 1)]
HEADINGS = ("wav_id", "발화문", "상황", *itertools.chain(*_RATERS), "나이", "성별")

_GENDERS = ("female", "male")
_INTENSITIES = ("0", "1", "2")
_AGE = re.compile(r"(\d{1,3})(?:\.0)?")  # spreadsheets save 29 as 29.0


@dataclass(frozen=True, slots=True)
class Row:
    """One annotated row.

    Attributes
    ----------
    release : str
        Name of the release.
    wav_id : str
        Name of the audio file without suffix; where that is unusable, file and line.
    text : str or None
        The utterance, without outer blanks and TABs.
    situation : str or None
        The scripted emotion.
    votes : tuple[Vote, ...]
        One per rater who named an emotion.
    age : int or None
        In years.
    gender : {"female", "male"} or None
        As annotated.
    n_odd_intensities : int
        Votes whose intensity is missing, no 0, 1 or 2, or contradicts the label.
    defect, detail : str
        Why the row cannot be used whatever the audio and the policy; empty if it can.
    """

    release: str
    wav_id: str
    text: str | None = None
    situation: str | None = None
    votes: tuple[Vote, ...] = ()
    age: int | None = None
    gender: str | None = None
    n_odd_intensities: int = 0
    defect: str = ""
    detail: str = ""


def named(paths: Iterable[Path], names: Sequence[str]) -> list[Path]:
    """Those of `paths` whose file name is one of `names`, however the disk composes Hangul."""
    return [
        path for path in paths if unicodedata.normalize("NFC", path.name).casefold() in set(names)
    ]


def read_rows(path: Path, release: str) -> list[Row]:
    """Every annotated row of one CSV file, in order.

    Parameters
    ----------
    path : Path
        UTF-8 or cp949, RFC 4180.
    release : str
        Name of the release it belongs to.

    Returns
    -------
    list[Row]
        One per line of the table; unusable ones carry a `Row.defect`. Labels are under
        koser's names, and not yet checked to be among the seven.

    Raises
    ------
    CorpusError
        If the file cannot be read or decoded, breaks RFC 4180 or lacks a column.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"Cannot read '{path}': {error.strerror}.") from error
    reader = csv.reader(io.StringIO(decode(content, str(path)), newline=""), strict=True)
    try:
        cells = [(reader.line_num, line) for line in reader]
    except csv.Error as error:
        raise CorpusError(
            f"'{path}', line {reader.line_num}: {error}. A quote is not closed or not doubled; "
            f"take the file from the AI Hub again."
        ) from error
    if not cells:
        raise CorpusError(f"'{path}' is empty. Take the file from the AI Hub again.")
    columns = _columns(cells[0][1], path)
    return list(_rows(cells[1:], columns, release, path.name))


def _columns(header: Sequence[str], path: Path) -> dict[str, int]:
    found = ["".join(unicodedata.normalize("NFC", heading).split()) for heading in header]
    wrong = [heading for heading in HEADINGS if found.count(heading) != 1]
    if wrong:
        raise CorpusError(
            f"'{path}' does not have each of these columns once: {', '.join(wrong)} "
            f"(it has: {', '.join(found)}). Is it a CSV file of AI Hub 263?"
        )
    return {heading: found.index(heading) for heading in HEADINGS}


def _rows(
    lines: Iterable[tuple[int, Sequence[str]]], columns: dict[str, int], release: str, name: str
) -> Iterator[Row]:
    n_columns = max(columns.values()) + 1
    for number, line in lines:
        if not line:  # an empty line is no row
            continue
        source = f"{unicodedata.normalize('NFC', name)}, line {number}"
        if len(line) < n_columns:
            detail = f"{len(line)} cells, {n_columns} expected"
            yield Row(release, source, defect="malformed row", detail=detail)
            continue
        cell = {heading: line[index].strip() for heading, index in columns.items()}
        if not cell["wav_id"]:
            yield Row(release, source, defect="no wav_id")
            continue
        yield _row(cell, release)


def _row(cell: dict[str, str], release: str) -> Row:
    votes, n_odd = [], 0
    for label_heading, intensity_heading in _RATERS:
        if not cell[label_heading]:
            continue
        label, intensity = canonical_label(cell[label_heading]), cell[intensity_heading]
        is_usable = intensity in _INTENSITIES
        n_odd += not is_usable or (intensity == "0") != (label == "neutral")
        votes.append(Vote(label, int(intensity) if is_usable else None))
    age, gender = _AGE.fullmatch(cell["나이"]), cell["성별"].casefold()
    defect = detail = ""
    if age is None:
        defect, detail = "no usable age", f"나이 is {cell['나이']!r}"
    elif gender not in _GENDERS:
        defect, detail = "no usable gender", f"성별 is {cell['성별']!r}"
    return Row(
        release=release,
        wav_id=unicodedata.normalize("NFC", cell["wav_id"]),
        text=cell["발화문"] or None,
        situation=canonical_label(cell["상황"]) if cell["상황"] else None,
        votes=tuple(votes),
        age=int(age[1]) if age else None,
        gender=gender if gender in _GENDERS else None,
        n_odd_intensities=n_odd,
        defect=defect,
        detail=detail,
    )
