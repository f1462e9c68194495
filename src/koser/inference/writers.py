"""Timelines as files that other programs open: subtitles, RTTM, Audacity, Praat, CSV, JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from koser.errors import ConfigError
from koser.inference.segments import Segment
from koser.inference.timeline import Timeline

# What stands where a label would, where the recognizer abstains.
UNSURE = "unsure"


def render_timeline(timeline: Timeline, format: str) -> str:
    """Write a timeline in one of `TIMELINE_FORMATS`.

    Parameters
    ----------
    timeline : Timeline
        What to write.
    format : str
        ``table`` for people; ``json`` with everything, the curve too; ``csv`` with one row
        per segment; ``rttm`` (NIST's rich transcription, as diarization tools exchange
        it); ``srt`` and ``vtt`` subtitles; ``audacity`` labels; ``textgrid`` for Praat.

    Returns
    -------
    str
        The content of a file, ending in a line break.

    Raises
    ------
    ConfigError
        If there is no such format.
    """
    return render_timelines([timeline], format)


def render_timelines(timelines: Sequence[Timeline], format: str) -> str:
    """Write timelines of several recordings into one file, in a format that names them.

    Raises
    ------
    ConfigError
        If there is no such format, or it holds one recording only.
    """
    check_format(format, n_recordings=len(timelines))
    return _OF_ONE[format](timelines[0]) if format in _OF_ONE else _OF_MANY[format](timelines)


def check_format(format: str, *, n_recordings: int, is_folder: bool = False) -> None:
    """Refuse a format before the work.

    Parameters
    ----------
    format : str
        What is asked for.
    n_recordings : int
        How many recordings are to be written.
    is_folder : bool
        Whether each gets a file of its own.

    Raises
    ------
    ConfigError
        If there is no such format, or one file of it cannot hold the recordings.
    """
    if format not in TIMELINE_FORMATS:
        raise ConfigError(f"No timeline format '{format}'. Formats: {', '.join(TIMELINE_FORMATS)}.")
    if format in _OF_ONE and n_recordings != 1 and not is_folder:
        raise ConfigError(
            f"A file of format '{format}' is of one recording, not of {n_recordings}. Make a "
            f"folder and give it with --out, for a file each, or take a format that names "
            f"recordings: {', '.join(_OF_MANY)}."
        )


def file_names(timelines: Sequence[Timeline], format: str) -> list[str]:
    """What the files of several recordings are called in one folder.

    Raises
    ------
    ConfigError
        If two recordings would be called the same.
    """
    names = [Path(each.path or "sound").with_suffix(_SUFFIXES[format]).name for each in timelines]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"Several recordings would be written to {', '.join(twice[:3])}. Recognise them "
            f"one folder at a time."
        )
    return names


def recording_name(path: str | None) -> str:
    """What RTTM calls a recording: its file's name without ending and white space.

    Examples
    --------
    >>> recording_name("calls/no 1.wav"), recording_name(None)
    ('no_1', 'sound')
    """
    return _no_space(Path(path).stem if path else "sound")


def _table(timelines: Iterable[Timeline]) -> str:
    lines = []
    for timeline in timelines:
        lines.append(f"{timeline.path or 'sound'}: {_clock(timeline.duration, '.')}")
        width = max(len(label) for label in (*timeline.labels, UNSURE))
        for segment in timeline.segments:
            times = f"{_clock(segment.start, '.')} – {_clock(segment.end, '.')}"
            speaker = "" if segment.speaker is None else f"  {segment.speaker}"
            lines.append(f"  {times}  {_name(segment):<{width}}  {segment.confidence:.3f}{speaker}")
        if not timeline.segments:
            lines.append("  no speech")
    return _joined(lines)


def _json(timelines: Sequence[Timeline]) -> str:
    values = [timeline.to_dict() for timeline in timelines]
    return json.dumps(values, ensure_ascii=False, indent=1) + "\n"


def _csv(timelines: Sequence[Timeline]) -> str:
    labels = timelines[0].labels
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["path", "start", "end", "label", "confidence", *labels, "speaker"])
    for timeline in timelines:
        for segment in timeline.segments:
            cells = [timeline.path or "", segment.start, segment.end, segment.label or ""]
            shares = [segment.probabilities[label] for label in labels]
            writer.writerow([*cells, segment.confidence, *shares, segment.speaker or ""])
    return buffer.getvalue()


def _rttm(timelines: Iterable[Timeline]) -> str:
    # NIST's RTTM, version 1.3: type, file, channel, onset, duration, orthography, subtype,
    # name, confidence, look-ahead. Fields are separated by white space, so none may hold any.
    lines = []
    for timeline in timelines:
        file = recording_name(timeline.path)
        for segment in timeline.segments:
            lines.append(
                f"SPEAKER {file} 1 {segment.start:.3f} {segment.duration:.3f} <NA> <NA> "
                f"{_no_space(_name(segment))} {segment.confidence:.3f} <NA>"
            )
    return _joined(lines)


def _srt(timeline: Timeline) -> str:
    blocks = [
        f"{number}\n{_clock(segment.start, ',')} --> {_clock(segment.end, ',')}\n"
        f"{_caption(segment)}\n"
        for number, segment in enumerate(timeline.segments, start=1)
    ]
    return "\n".join(blocks)


def _vtt(timeline: Timeline) -> str:
    blocks = ["WEBVTT\n"]
    for segment in timeline.segments:
        caption = _caption(segment)
        for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
            caption = caption.replace(character, entity)
        times = f"{_clock(segment.start, '.')} --> {_clock(segment.end, '.')}"
        blocks.append(f"{times}\n{caption}\n")
    return "\n".join(blocks)


def _audacity(timeline: Timeline) -> str:
    return _joined(
        f"{segment.start:.6f}\t{segment.end:.6f}\t{_one_line(_name(segment))}"
        for segment in timeline.segments
    )


def _textgrid(timeline: Timeline) -> str:
    """Praat's long text format; an interval tier leaves no gap, so silence has its intervals."""
    tiers = {"emotion": [(each.start, each.end, _name(each)) for each in timeline.segments]}
    if any(segment.speaker is not None for segment in timeline.segments):
        tiers["speaker"] = [
            (each.start, each.end, each.speaker or "") for each in timeline.segments
        ]
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {timeline.duration!r}",
        "tiers? <exists>",
        f"size = {len(tiers)}",
        "item []:",
    ]
    for number, (name, intervals) in enumerate(tiers.items(), start=1):
        filled = _without_gaps(intervals, timeline.duration)
        lines += [
            f"    item [{number}]:",
            '        class = "IntervalTier"',
            f'        name = "{name}"',
            "        xmin = 0",
            f"        xmax = {timeline.duration!r}",
            f"        intervals: size = {len(filled)}",
        ]
        for place, (start, end, text) in enumerate(filled, start=1):
            quoted = _one_line(text).replace('"', '""')
            lines += [
                f"        intervals [{place}]:",
                f"            xmin = {start!r}",
                f"            xmax = {end!r}",
                f'            text = "{quoted}"',
            ]
    return _joined(lines)


def _without_gaps(
    intervals: Iterable[tuple[float, float, str]], duration: float
) -> list[tuple[float, float, str]]:
    filled, position = [], 0.0
    for start, end, text in intervals:
        if start > position:
            filled.append((position, start, ""))
        filled.append((start, end, text))
        position = end
    if position < duration or not filled:
        filled.append((position, duration, ""))
    return filled


def _name(segment: Segment) -> str:
    return UNSURE if segment.label is None else segment.label


def _caption(segment: Segment) -> str:
    speaker = "" if segment.speaker is None else f"{segment.speaker}: "
    return _one_line(f"{speaker}{_name(segment)} {100 * segment.confidence:.0f}%")


def _clock(seconds: float, mark: str) -> str:
    """``hh:mm:ss`` and milliseconds after `mark`.

    Examples
    --------
    >>> _clock(3725.5, ",")
    '01:02:05,500'
    """
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}{mark}{rest % 1000:03d}"


def _one_line(text: str) -> str:
    # A label is what somebody's corpus calls it; here it must not end a line or a cue.
    return re.sub(r"\s+", " ", text).replace("-->", "->").strip()


def _no_space(text: str) -> str:
    return re.sub(r"\s+", "_", text) or "_"


def _joined(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


_OF_MANY: dict[str, Callable[[Sequence[Timeline]], str]] = {
    "table": _table,
    "json": _json,
    "csv": _csv,
    "rttm": _rttm,
}
_OF_ONE: dict[str, Callable[[Timeline], str]] = {
    "srt": _srt,
    "vtt": _vtt,
    "audacity": _audacity,
    "textgrid": _textgrid,
}
TIMELINE_FORMATS = (*_OF_MANY, *_OF_ONE)
# Endings of the files' names.
_SUFFIXES = {
    **{name: f".{name}" for name in TIMELINE_FORMATS},
    "table": ".txt",
    "audacity": ".txt",
    "textgrid": ".TextGrid",
}
