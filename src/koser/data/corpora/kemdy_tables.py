"""The annotation tables of KEMDy19 and KEMDy20: two header rows, totals, ten raters."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Literal, get_args

from koser.audio.listing import audio_files, find_files
from koser.data.corpora.archives import nothing_found
from koser.data.corpora.collecting import (
    Collector,
    decode,
    finite_number,
    have_same_bytes,
    paths_by_stem,
    read_bytes,
    read_text_beside,
)
from koser.data.corpora.votes import Decision, Vote, check_policy, decide, vote_shares
from koser.data.manifest import Manifest
from koser.errors import CorpusError, LabelError
from koser.labels import EMOTIONS, canonical_label, ordered_labels

N_RATERS = 10
SCALE = (1.0, 5.0)  # of valence and arousal

LabelPolicy = Literal["majority", "soft"]

_SEGMENT, _TOTAL = "segment id", "total evaluation"
_PARTS = ("emotion", "valence", "arousal")

# What transcribers mark besides speech: /o, /l, \c, \n, and the same turned round, in runs too.
_TAGS = re.compile(r"(?<![A-Za-z0-9])(?:(?:[/\\][A-Za-z])+|(?:[A-Za-z][/\\])+)(?![A-Za-z0-9])")


@dataclass(frozen=True, slots=True)
class Row:
    """One segment of an annotation table.

    Attributes
    ----------
    source : str
        File and line.
    segment_id : str
        Name of the audio file without suffix; empty where the cell is.
    totals : tuple[str, ...]
        The corpus's own label, under koser's names; several where raters are tied.
    votes : tuple[Vote, ...]
        One per rater who named an emotion.
    valence, arousal : float or None
        Means over the raters, 1 to 5; None where the cell is blank or outside the scale.
    n_odd_values : int
        Cells of valence and arousal that are none.
    """

    source: str
    segment_id: str
    totals: tuple[str, ...] = ()
    votes: tuple[Vote, ...] = ()
    valence: float | None = None
    arousal: float | None = None
    n_odd_values: int = 0


def read_rows(path: Path) -> list[Row]:
    """Every segment of one annotation table, in order.

    Parameters
    ----------
    path : Path
        CSV in UTF-8 or cp949. The first header row names groups of columns (``Segment ID``,
        ``Total Evaluation``, then one group a rater), the second ``Emotion``, ``Valence`` and
        ``Arousal`` in each group.

    Raises
    ------
    CorpusError
        If the file cannot be read or has another header.
    """
    text = decode(read_bytes(path), str(path))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        lines = [(reader.line_num, line) for line in reader if any(cell.strip() for cell in line)]
    except csv.Error as error:
        raise CorpusError(
            f"'{path}', line {reader.line_num}: {error}. Take the file from ETRI again."
        ) from error
    segment, total, raters = _columns([line for _, line in lines[:2]], path)
    return [
        _row(f"{path.name}, line {number}", line, segment, total, raters)
        for number, line in lines[2:]
    ]


def _columns(header: Sequence[Sequence[str]], path: Path) -> tuple[int, dict[str, int], list[int]]:
    """Columns of the segment id, of each part of the total, and of each rater's emotion.

    A blank first row continues the group to its left.
    """
    segment, total, raters, name = -1, dict[str, int](), list[int](), ""
    if len(header) == 2:
        for index, (above, below) in enumerate(zip_longest(*header, fillvalue="")):
            name, part = above.strip().casefold() or name, below.strip().casefold()
            if name == _SEGMENT and segment < 0:
                segment = index
            elif name == _TOTAL:
                total.setdefault(part, index)
            elif part == "emotion":  # a rater each, whatever they are called
                raters.append(index)
    if segment < 0 or any(part not in total for part in _PARTS):
        raise CorpusError(
            f"'{path}' has no two header rows with 'Segment ID' and 'Total Evaluation' over "
            f"Emotion, Valence and Arousal. Is it an annotation table of KEMDy19 or KEMDy20?"
        )
    return segment, total, raters


def _row(
    source: str, line: Sequence[str], segment: int, total: Mapping[str, int], raters: Iterable[int]
) -> Row:
    def cell(index: int) -> str:
        return line[index].strip() if index < len(line) else ""

    votes = tuple(Vote(canonical_label(cell(index))) for index in raters if cell(index))
    values = [_on_scale(cell(total[part])) for part in ("valence", "arousal")]
    labels = [canonical_label(part) for part in cell(total["emotion"]).split(";") if part.strip()]
    return Row(
        source=source,
        segment_id=cell(segment),
        totals=ordered_labels(labels),
        votes=votes,
        valence=values[0],
        arousal=values[1],
        n_odd_values=values.count(None),
    )


def _on_scale(text: str) -> float | None:
    number = finite_number(text)
    return number if number is not None and SCALE[0] <= number <= SCALE[1] else None


def check_labels(labels: str, min_votes: int | None) -> None:
    """Refuse a label policy that these corpora do not have.

    Raises
    ------
    ConfigError
        As `koser.data.corpora.votes.check_policy`.
    """
    check_policy(labels, min_votes, policies=get_args(LabelPolicy), n_raters=N_RATERS)


def refuse_unknown_labels(rows: Iterable[Row], corpus: str) -> None:
    """Refuse labels that are none of the seven.

    Raises
    ------
    LabelError
        With each of them and the number of its rows.
    """
    n_rows_of = Counter(
        label for row in rows for label in {*row.totals, *(vote.label for vote in row.votes)}
    )
    unknown = sorted(set(n_rows_of) - set(EMOTIONS))
    if unknown:
        counts = ", ".join(f"'{label}' ({n_rows_of[label]} rows)" for label in unknown)
        raise LabelError(
            f"Labels that {corpus} does not have: {counts}. Known are {', '.join(EMOTIONS)} and "
            f"their aliases. Correct them in the annotation tables."
        )


def find_tables(
    root: Path, pattern: re.Pattern[str], *, corpus: str, names: str
) -> dict[tuple[str, ...], Path]:
    """The annotation tables below `root`, by the groups of `pattern` in their names, sorted.

    Raises
    ------
    CorpusError
        If there is none, or two of one name.
    """
    tables: dict[tuple[str, ...], Path] = {}
    for path in find_files(root, (".csv",)):
        name = pattern.fullmatch(path.name)
        if name is None:
            continue
        key = tuple(group.upper() for group in name.groups())
        if key in tables:
            raise CorpusError(
                f"Two annotation tables are named '{path.name}': '{tables[key]}' and '{path}'. "
                f"Keep one below '{root}'."
            )
        tables[key] = path
    if not tables:
        raise nothing_found(
            f"No annotation table of {corpus} below '{root}' (looked for {names}).",
            root,
            "Give the folder that holds 'wav' and 'annotation'.",
        )
    return dict(sorted(tables.items()))


def make_manifest(
    collector: Collector,
    rows: Iterable[tuple[Row, Mapping[str, str]]],
    listed: Collection[str],
    *,
    labels: LabelPolicy,
    min_votes: int | None,
) -> Manifest:
    """Find the audio of every row and make the manifest.

    Parameters
    ----------
    collector : Collector
        Where rows go; its root is searched for audio.
    rows : Iterable[tuple[Row, Mapping[str, str]]]
        Rows to keep, each with the columns that its id gives, such as ``speaker``.
    listed : Collection[str]
        All segment ids of the tables: other audio is reported as unlisted.
    labels : {"majority", "soft"}
        ``majority``: the corpus's own label; rows that it leaves tied are left out. ``soft``:
        the same, a tie going to the first in label order, with the distribution of the votes.
    min_votes : int or None
        With ``majority``, raters who must have chosen the label.

    Raises
    ------
    CorpusError
        If no row is left.
    """
    audio = paths_by_stem(audio_files(Path(collector.root)))
    classes = _collect(collector, rows, audio, labels, min_votes)
    for stem, paths in audio.items():
        if stem not in listed:
            collector.leave_unlisted(paths)
    return collector.manifest(
        label_policy=labels if min_votes is None else f"{labels} (at least {min_votes} votes)",
        grouping="speaker",
        labels=classes if labels == "soft" else None,
    )


def _collect(
    collector: Collector,
    rows: Iterable[tuple[Row, Mapping[str, str]]],
    audio: Mapping[str, Sequence[Path]],
    labels: LabelPolicy,
    min_votes: int | None,
) -> tuple[str, ...]:
    """Add every row, with its audio and text, or report it; return all classes."""
    kept: list[tuple[Row, Mapping[str, str], Path, str]] = []
    for row, fields in rows:
        paths = audio.get(row.segment_id, ())
        decision = _decide(row, labels, min_votes)
        if not paths:
            collector.leave_out(row.segment_id, "no audio file", row.source)
        elif not have_same_bytes(paths):
            where = ", ".join(f"'{path}'" for path in paths)
            collector.leave_out(row.segment_id, "different audio files of one name", where)
        elif decision.label is None:
            collector.leave_out(row.segment_id, decision.reason, decision.detail)
        else:
            kept.append((row, fields, paths[0], decision.label))
    named = {label for _, _, _, label in kept}
    if labels == "soft":
        named.update(vote.label for row, _, _, _ in kept for vote in row.votes)
    classes = ordered_labels(named)
    n_tagged = n_silent = 0
    for row, fields, path, label in kept:
        try:
            text, n_tags = without_tags(read_text_beside(path))
        except CorpusError:  # the text is lost, the utterance is not
            text, n_tags = None, 0
        n_tagged += n_tags > 0
        n_silent += text is None
        collector.add(
            id=row.segment_id,
            path=str(path),
            label=label,
            votes=[{"label": vote.label, "intensity": None} for vote in row.votes] or None,
            distribution=vote_shares(row.votes, classes) if labels == "soft" else None,
            valence=row.valence,
            arousal=row.arousal,
            text=text,
            **fields,
        )
    for note in _notes([row for row, _, _, _ in kept], labels, n_tagged, n_silent):
        collector.note(note)
    return classes


def _decide(row: Row, labels: LabelPolicy, min_votes: int | None) -> Decision:
    if labels == "soft":
        if not row.votes:
            return Decision(None, "no votes", row.source)
        if len(row.totals) == 1:
            return Decision(row.totals[0])
        return decide(None, row.votes, policy="soft", min_votes=None)
    if len(row.totals) != 1:
        detail = ", ".join(row.totals)
        return Decision(None, "tie for first place" if detail else "no label", detail or row.source)
    n_votes = sum(vote.label == row.totals[0] for vote in row.votes)
    if min_votes is not None and n_votes < min_votes:
        reason = f"fewer than {min_votes} votes for one label"
        return Decision(None, reason, f"{row.totals[0]}: {n_votes} of {len(row.votes)}")
    return Decision(row.totals[0])


def _notes(rows: Sequence[Row], labels: LabelPolicy, n_tagged: int, n_silent: int) -> Iterator[str]:
    if labels == "soft":
        yield (
            "Distributions are the raters' votes. The label is the corpus's own; where it names "
            "several, the first of them in label order."
        )
    n_other = sum(
        bool(row.votes)
        and decide(None, row.votes, policy="majority", min_votes=None).label != row.totals[0]
        for row in rows
        if len(row.totals) == 1
    )
    if n_other:
        yield (
            f"{n_other:,} labels are not the plurality of their row's votes, which the corpus says "
            f"they are; they are kept as the corpus gives them."
        )
    n_incomplete = sum(len(row.votes) != N_RATERS for row in rows)
    if n_incomplete:
        yield f"{n_incomplete:,} rows have not {N_RATERS} votes."
    n_odd = sum(row.n_odd_values for row in rows)
    if n_odd:
        yield f"{n_odd:,} values of valence or arousal are blank or outside 1–5 and read as null."
    if n_tagged:
        yield f"Marks of noise and breath (/o, /l, \\c, \\n) are taken out of {n_tagged:,} texts."
    if n_silent:
        yield (
            f"{n_silent:,} rows have no text: their .txt is missing, blank but for marks, or in "
            f"neither UTF-8 nor cp949."
        )


def without_tags(text: str | None) -> tuple[str | None, int]:
    r"""`text` without the transcribers' marks, and how many there were.

    Examples
    --------
    >>> without_tags(r"/o 그래서 \c 갔어 n/")
    ('그래서 갔어', 3)
    """
    if text is None:
        return None, 0
    n_tags = sum(len(run) // 2 for run in _TAGS.findall(text))
    return " ".join(_TAGS.sub(" ", text).split()) or None, n_tags
