"""AI Hub 58 (formerly 137), 「멀티모달 영상」: clips of Korean video, labelled frame by frame.

Source
    https://aihub.or.kr, data set 58. Each user needs an agreement of their own, which forbids
    passing on the data or what is derived from it.
Size
    About 6,000 clips, 110 hours, several people in each.
Labels
    Of each person and utterance four judgements: by image, sound, text and all together
    (``multimodal``); seven emotions, ``dislike`` is disgust. Valence and arousal where the
    judgement has them.
Layout
    ``clip_13.json`` beside or apart from ``clip_13.mp4`` or ``0013.MP4``, UTF-8 or cp949:
    ``data`` holds frames, each of them people with ``person_id``, ``text`` (``script``,
    ``script_start``, ``script_end``, in frames) and ``emotion``. An utterance is repeated in
    all its frames: it is read once by person, start and end. The sound has to be taken out of
    the videos, under the same name.

Two things the files do not say, as far as public code shows. How many frames a second has must
be given. And a person's number counts within a clip: the same actor may be in many clips under
different numbers, so that koser knows no speakers here and groups by clip.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

from koser.audio.listing import AUDIO_SUFFIXES, find_files
from koser.data.corpora.archives import nothing_found
from koser.data.corpora.collecting import (
    Collector,
    finite_number,
    have_same_bytes,
    read_json,
)
from koser.data.corpora.survey import Survey
from koser.data.corpora.votes import check_policy
from koser.data.manifest import Manifest
from koser.engines.engine import Engine
from koser.engines.local import SERIAL, available_cores, iter_map
from koser.errors import ConfigError, CorpusError, LabelError
from koser.labels import EMOTIONS, canonical_label

LabelPolicy = Literal["multimodal", "sound", "text", "image"]

_CLIP = re.compile(r"clip_(\d+)")
_NUMBER = re.compile(r"(?:clip_)?0*(\d+)", re.IGNORECASE)
_VIDEO = (".mp4", ".mts", ".m2ts", ".avi", ".mkv", ".webm")
# Below this many clips, starting worker processes costs more than it saves.
_WORTH_WORKERS = 64


@dataclass(frozen=True, slots=True)
class Utterance:
    """One utterance of a clip.

    Attributes
    ----------
    person : str
        Number of the person in the clip.
    first, last : int or None
        Frames; None where the cell is no number.
    text : str
        What is said.
    labels : tuple[str, ...]
        Every label that its frames give, under koser's names; one, if they agree.
    valence, arousal : float or None
        As the frames agree on them.
    """

    person: str
    first: int | None
    last: int | None
    text: str
    labels: tuple[str, ...]
    valence: float | None
    arousal: float | None


@dataclass(frozen=True, slots=True)
class Clip:
    """One label file: its clip's number, its utterances, or why it has none."""

    name: str
    utterances: tuple[Utterance, ...] = ()
    n_frames: int = 0
    defect: str = ""


def recognise(survey: Survey) -> str | None:
    """Say why `survey` looks like this corpus; None if it does not."""
    found = survey.matching(
        lambda name: name.lower().endswith(".json") and _CLIP.fullmatch(name.rpartition(".")[0])
    )
    return f"label files named like {found[0]}" if found else None


def prepare(
    root: Path,
    *,
    labels: LabelPolicy = "multimodal",
    frame_rate: float | None = None,
    engine: Engine = SERIAL,
) -> Manifest:
    """Read the clips below `root`.

    Parameters
    ----------
    root : Path
        Folder with the label files and the sound of the clips, at any depth.
    labels : {"multimodal", "sound", "text", "image"}
        Whose judgement the label is: of those who saw, heard and read, or of one of these.
    frame_rate : float
        Frames a second of the videos, needed to know where an utterance is. To see it:
        ``ffprobe -v error -select_streams v -show_entries stream=r_frame_rate clip_13.mp4``.
    engine : Engine
        Where the audio's headers are read.

    Returns
    -------
    Manifest
        One row per utterance, with `start` and `end`; `group` and `session` are the clip.

    Raises
    ------
    ConfigError
        If `labels` is unknown, or `frame_rate` is missing or not above 0.
    CorpusError
        If there is no label file, no sound of the clips, or no row is left.
    LabelError
        If a label is none of the seven.
    """
    check_policy(labels, None, policies=get_args(LabelPolicy), n_raters=1)
    if frame_rate is None or not frame_rate > 0:
        raise ConfigError(
            f"frame_rate={frame_rate}: AI Hub 58 gives times in frames and not how many a second "
            f"has. Give it (--frame-rate): ffprobe -v error -select_streams v -show_entries "
            f"stream=r_frame_rate CLIP.mp4"
        )
    collector = Collector("aihub58", root, corpus="aihub58", language="ko", engine=engine)
    clips = _read_clips(root, labels)
    if not clips:
        raise nothing_found(
            f"No label file of AI Hub 58 below '{root}' (looked for clip_N.json).",
            root,
            "Unpack the label files there.",
        )
    _refuse_unknown_labels(clips)
    sound = _sound(root, {clip.name for clip in clips}, collector)
    for clip in clips:
        paths = sound.get(clip.name, [])
        if clip.defect:
            collector.leave_out(f"clip_{clip.name}", "unreadable label file", clip.defect)
        elif not paths:
            n_utterances = f"{len(clip.utterances)} utterances"
            collector.leave_out(f"clip_{clip.name}", "clip without audio file", n_utterances)
        elif not have_same_bytes(paths):
            where = ", ".join(f"'{path}'" for path in paths)
            collector.leave_out(f"clip_{clip.name}", "different audio files of one name", where)
        else:
            _add(collector, clip, paths[0], frame_rate)
    collector.note(
        f"{sum(clip.n_frames for clip in clips):,} labelled frames make "
        f"{sum(len(clip.utterances) for clip in clips):,} utterances, by person, start and end; "
        f"{frame_rate:g} frames a second, as given."
    )
    collector.note(
        "The corpus names no speakers: a person's number counts within a clip, and one actor may "
        "be in many clips. A group-disjoint split keeps clips apart, not people."
    )
    return collector.manifest(label_policy=labels, grouping="group(clip)")


class _ClipReader:
    """Read label files; a class, so that worker processes can make their own."""

    def __init__(self, policy: str) -> None:
        self._policy = policy

    def __call__(self, path: Path) -> Clip:
        number = _CLIP.fullmatch(path.stem)
        name = str(int(number[1])) if number else path.stem
        try:
            content = read_json(path)
        except CorpusError as error:
            return Clip(name, defect=str(error))
        if not isinstance(content, dict) or not isinstance(content.get("data"), dict):
            return Clip(name, defect=f"'{path}' has no 'data' of frames")
        return _clip(name, content["data"], self._policy)


def _read_clips(root: Path, policy: str) -> list[Clip]:
    paths = [path for path in find_files(root, (".json",)) if _CLIP.fullmatch(path.stem)]
    n_workers = available_cores() if len(paths) >= _WORTH_WORKERS else 1
    return list(iter_map(partial(_ClipReader, policy), paths, n_workers=n_workers, chunk_size=4))


def _clip(name: str, frames: Mapping[str, Any], policy: str) -> Clip:
    """The utterances of one clip, in order of their first frame seen."""
    found: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for frame in frames.values():
        for person in frame.values() if isinstance(frame, dict) else ():
            text = person.get("text") if isinstance(person, dict) else None
            if isinstance(text, dict) and str(text.get("script") or "").strip():
                times = (str(text.get("script_start")), str(text.get("script_end")))
                found.setdefault((str(person.get("person_id")), *times), []).append(person)
    utterances = tuple(_utterance(key, people, policy) for key, people in found.items())
    return Clip(name, utterances, sum(len(people) for people in found.values()))


def _utterance(
    key: tuple[str, str, str], people: Sequence[Mapping[str, Any]], policy: str
) -> Utterance:
    judgements = [_mapping(_mapping(person.get("emotion")).get(policy)) for person in people]
    stated = (str(each.get("emotion") or "").strip() for each in judgements)
    labels = dict.fromkeys(canonical_label(label) for label in stated if label)
    person, first, last = key
    return Utterance(
        person=person,
        first=_frame(first),
        last=_frame(last),
        text=" ".join(str(people[0]["text"]["script"]).split()),
        labels=tuple(labels),
        valence=_agreed(judgements, "valence"),
        arousal=_agreed(judgements, "arousal"),
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _frame(text: str) -> int | None:
    number = finite_number(text.strip())
    return int(number) if number is not None and number == int(number) else None


def _agreed(judgements: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = {finite_number(str(each.get(name))) for each in judgements}
    return values.pop() if len(values) == 1 else None


def _refuse_unknown_labels(clips: Sequence[Clip]) -> None:
    n_rows_of = Counter(
        label for clip in clips for utterance in clip.utterances for label in utterance.labels
    )
    unknown = sorted(set(n_rows_of) - set(EMOTIONS))
    if unknown:
        counts = ", ".join(f"'{label}' ({n_rows_of[label]} rows)" for label in unknown)
        raise LabelError(
            f"Labels that AI Hub 58 does not have: {counts}. Known are {', '.join(EMOTIONS)} and "
            f"their aliases. Correct them in the label files."
        )


def _sound(root: Path, names: set[str], collector: Collector) -> dict[str, list[Path]]:
    """Audio files by the number of their clip; sound without a label file is reported."""
    sound: dict[str, list[Path]] = {}
    videos = []
    for path in find_files(root, (*AUDIO_SUFFIXES, *_VIDEO)):
        if path.suffix.lower() in _VIDEO:
            videos.append(path)
            continue
        number = _NUMBER.fullmatch(path.stem)
        if number and number[1] in names:
            sound.setdefault(number[1], []).append(path)
        else:
            collector.leave_unlisted([path])
    if videos and not sound:
        raise CorpusError(
            f"{len(videos)} videos and no sound of AI Hub 58 below '{root}'. Take the sound out, "
            f"in that folder: find . -iname '*.mp4' -exec sh -c 'ffmpeg -nostdin -i \"$1\" -vn "
            f'-ac 1 "${{1%.*}}.wav"\' _ {{}} \\;'
        )
    return sound


def _add(collector: Collector, clip: Clip, path: Path, frame_rate: float) -> None:
    for utterance in clip.utterances:
        name = f"clip_{clip.name}_{utterance.person}_{utterance.first}_{utterance.last}"
        if utterance.first is None or utterance.last is None:
            collector.leave_out(name, "unusable time")
        elif not utterance.labels:
            collector.leave_out(name, "no label")
        elif len(utterance.labels) > 1:
            collector.leave_out(name, "conflicting labels", ", ".join(utterance.labels))
        else:
            collector.add(
                id=name,
                path=str(path),
                start=utterance.first / frame_rate,
                end=utterance.last / frame_rate,
                label=utterance.labels[0],
                valence=utterance.valence,
                arousal=utterance.arousal,
                group=f"clip_{clip.name}",
                session=f"clip_{clip.name}",
                text=utterance.text,
            )
