"""AI Hub 71631 and 71632, 「감정이 태깅된 자유대화」: free dialogues of adults and of youths.

Source
    https://aihub.or.kr, data sets 71631 (adults) and 71632 (youths). Each user needs an
    agreement of their own, which forbids passing on the data or what is derived from it.
Size
    Recordings of about a quarter of an hour with two speakers each; 16 kHz, stereo, although
    the label files say 48 kHz. One recording holds many utterances, given by their times.
Labels
    Seven: joy, surprise, fear, affection (사랑스러움), sadness, anger and none (없음), which is
    read as neutral; as the speaker gave it (``SpeakerEmotionTarget``) and, where the file has
    it, as a second person did (``VerifyEmotionTarget``).
Layout
    One JSON file (UTF-8 with BOM) a recording, of the same name as its wav, anywhere below the
    root: ``File``, ``Wav``, ``Speaker1``, ``Speaker2``, ``Conversation``. Times may have
    thousands separators (``1,000.73``).

The files do not say which of the two data sets they are of: the name that the user gives does,
and where both are below the root, the names of their folders.

The channel of a speaker is measured (`koser.data.corpora.channels`), because the first is
mostly, and not always, that of ``Speaker1``. That ``ID`` is unique to a person over all
recordings is taken from its use in public code; the AI Hub's description could not be checked.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from koser.audio.listing import audio_files, find_files
from koser.data.corpora.archives import nothing_found
from koser.data.corpora.channels import ChannelFinder, ChannelMap, Dialogue, Turn
from koser.data.corpora.collecting import (
    Collector,
    canonical_gender,
    finite_number,
    have_same_bytes,
    paths_by_stem,
    read_json,
    whole_years,
)
from koser.data.corpora.survey import Survey
from koser.data.corpora.votes import check_policy
from koser.data.manifest import Manifest
from koser.engines.engine import Engine
from koser.engines.local import SERIAL, available_cores, iter_map
from koser.errors import CorpusError, LabelError
from koser.labels import canonical_label

LabelPolicy = Literal["speaker", "verified"]

EMOTIONS = ("angry", "fear", "happiness", "neutral", "sadness", "surprise", "affection")
NONE = "없음"  # read as neutral
LEVELS = {"약함": 1, "보통": 2, "강함": 3}
ADULTS, YOUTHS = "aihub71631", "aihub71632"

# What in a folder's name tells the data sets apart.
_MARKS = {ADULTS: ("71631", "성인"), YOUTHS: ("71632", "청소년")}
_TARGETS = {"speaker": "SpeakerEmotionTarget", "verified": "VerifyEmotionTarget"}
_LEVEL_KEYS = {"speaker": "SpeakerEmotionLevel", "verified": "VerifyEmotionLevel"}
_SPEAKERS = ("Speaker1", "Speaker2")
_FOUND = "JSON files with 'Conversation' and emotion targets"
_MASK = re.compile(r"#@[^#]*#")  # what a name was replaced by
# Below this many recordings, starting worker processes costs more than it saves.
_WORTH_WORKERS = 64


@dataclass(frozen=True, slots=True)
class Utterance:
    """One entry of ``Conversation``.

    Attributes
    ----------
    speaker_no : str
        ``Speaker1`` or ``Speaker2``.
    start, end : float or None
        Seconds; None where the cell is no time.
    text : str or None
        Without the marks that stand for names.
    labels : Mapping[str, str]
        Label of each `LabelPolicy` that the file has, under koser's names.
    levels : Mapping[str, int | None]
        The same for intensities, 1 to 3.
    """

    speaker_no: str
    start: float | None
    end: float | None
    text: str | None
    labels: Mapping[str, str]
    levels: Mapping[str, int | None]


@dataclass(frozen=True, slots=True)
class Recording:
    """One label file: its name without suffix, its people by number, its utterances.

    `corpus` is the data set that its folders name, until it is decided which one it is of.
    """

    name: str
    corpus: str | None
    people: Mapping[str, Mapping[str, Any]]
    utterances: tuple[Utterance, ...]


def recognise(survey: Survey) -> str | None:
    """Say why `survey` looks like the adults' recordings, or both; None if it does not."""
    return _FOUND if ADULTS in _data_sets(survey) else None


def recognise_youths(survey: Survey) -> str | None:
    """Say why `survey` looks like the youths' recordings; None if it does not."""
    if _data_sets(survey) != {YOUTHS}:
        return None
    return f"{_FOUND}, in a folder named {' or '.join(_MARKS[YOUTHS])}"


def _data_sets(survey: Survey) -> set[str]:
    """Of which data sets the first label files are; without a sign, of adults."""
    root = survey.root.resolve()
    return {
        _named(root / name) or ADULTS
        for name, head in survey.heads(".json")
        if '"Conversation"' in head and "EmotionTarget" in head
    }


def prepare(root: Path, *, labels: LabelPolicy = "speaker", engine: Engine = SERIAL) -> Manifest:
    """Read the recordings below `root`, of adults or of both.

    Parameters
    ----------
    root : Path
        Folder with the unpacked label files and recordings. If its folders name both data
        sets, each recording is of the one that its own names.
    labels : {"speaker", "verified"}
        Whose judgement the label is: the speaker's, or the second person's.
    engine : Engine
        Where the audio's headers are read.

    Returns
    -------
    Manifest
        One row per utterance, with `start`, `end` and, where it could be measured, `channel`.
        An end past the end of the recording is cut back to it; a start past it, an unusable
        time or an utterance without label is left out. `session` is the recording; both
        judgements are in `votes`.

    Raises
    ------
    ConfigError
        If `labels` is unknown.
    CorpusError
        If there is no label file or no row is left.
    LabelError
        If a label is none of the seven.
    """
    return _prepare(ADULTS, root, labels, engine)


def prepare_youths(
    root: Path, *, labels: LabelPolicy = "speaker", engine: Engine = SERIAL
) -> Manifest:
    """Read the recordings below `root`, of youths or of both; else as `prepare`."""
    return _prepare(YOUTHS, root, labels, engine)


def _prepare(corpus: str, root: Path, labels: LabelPolicy, engine: Engine) -> Manifest:
    check_policy(labels, None, policies=get_args(LabelPolicy), n_raters=2)
    collector = Collector(corpus, root, corpus=corpus, language="ko", engine=engine)
    recordings = list(_recordings(root, collector))
    if not recordings:
        raise nothing_found(
            f"No label file of AI Hub 71631 or 71632 below '{root}' (looked for JSON files with "
            f"'Conversation').",
            root,
            "Unpack the label zips there too.",
        )
    recordings = _told_apart(recordings, corpus, collector)
    _refuse_unknown_labels(recordings)
    audio = paths_by_stem(audio_files(root))
    named = {recording.name for recording in recordings}
    for stem, paths in audio.items():
        if stem not in named:
            collector.leave_unlisted(paths)
    heard = list(_heard(recordings, audio, collector))
    maps = _find_channels(heard)
    for (recording, path), channels in zip(heard, maps, strict=True):
        _add(collector, recording, path, channels, labels)
    for note in _notes(maps):
        collector.note(note)
    return collector.manifest(label_policy=labels, grouping="speaker")


def _recordings(root: Path, collector: Collector) -> Iterator[Recording]:
    seen: dict[str, Path] = {}
    resolved = root.resolve()  # its own name may say more than the user typed
    for path in find_files(root, (".json",)):
        name = unicodedata.normalize("NFC", path.stem)
        try:
            content = read_json(path)
        except CorpusError as error:
            collector.leave_out(name, "unreadable label file", str(error))
            continue
        if not isinstance(content, dict) or not isinstance(content.get("Conversation"), list):
            continue  # some other JSON file, such as a list of what the AI Hub sent
        if name in seen:
            collector.leave_out(name, "another label file of this name", f"{path}; {seen[name]}")
            continue
        seen[name] = path
        yield Recording(
            name,
            _named(resolved / path.relative_to(root)),
            {number: _mapping(content.get(number)) for number in _SPEAKERS},
            tuple(_utterance(_mapping(entry)) for entry in content["Conversation"]),
        )


def _named(path: Path) -> str | None:
    """The data set that the folders of `path` name, the innermost first; None without a sign."""
    for folder in reversed(path.parent.parts):
        name = unicodedata.normalize("NFC", folder)
        found = [corpus for corpus, marks in _MARKS.items() if any(mark in name for mark in marks)]
        if len(found) == 1:
            return found[0]
    return None


def _told_apart(
    recordings: Sequence[Recording], corpus: str, collector: Collector
) -> list[Recording]:
    """`recordings` with the data set of each: `corpus`, unless their folders name both."""
    named = Counter(each.corpus or corpus for each in recordings)
    if len(named) > 1:
        counts = ", ".join(f"{n:,} for {name}" for name, n in sorted(named.items()))
        collector.note(f"Recordings are taken for what their folders' names say: {counts}.")
        return [replace(each, corpus=each.corpus or corpus) for each in recordings]
    if corpus not in named:
        why = f"as asked for, although their folders' names say {next(iter(named))}"
    elif any(each.corpus for each in recordings):
        why = "as their folders' names say"
    else:
        marks = " or ".join(", ".join(of_one) for of_one in _MARKS.values())
        why = f"and no folder's name says otherwise ({marks})"
    collector.note(f"All recordings are taken for {corpus}, {why}.")
    return [replace(each, corpus=corpus) for each in recordings]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _utterance(entry: Mapping[str, Any]) -> Utterance:
    labels, levels = {}, {}
    for policy, key in _TARGETS.items():
        target = unicodedata.normalize("NFC", str(entry.get(key) or "")).strip()
        if target:
            labels[policy] = "neutral" if target == NONE else canonical_label(target)
            level = unicodedata.normalize("NFC", str(entry.get(_LEVEL_KEYS[policy]) or ""))
            levels[policy] = LEVELS.get(level.strip())
    text = " ".join(_MASK.sub(" ", str(entry.get("Text") or "")).split())
    return Utterance(
        speaker_no=str(entry.get("SpeakerNo") or "").strip(),
        start=_seconds(entry.get("StartTime")),
        end=_seconds(entry.get("EndTime")),
        text=text or None,
        labels=labels,
        levels=levels,
    )


def _seconds(value: object) -> float | None:
    return finite_number(str(value).replace(",", "").strip())


def _refuse_unknown_labels(recordings: Iterable[Recording]) -> None:
    n_rows_of = Counter(
        label
        for recording in recordings
        for utterance in recording.utterances
        for label in set(utterance.labels.values())
    )
    unknown = sorted(set(n_rows_of) - set(EMOTIONS))
    if unknown:
        counts = ", ".join(f"'{label}' ({n_rows_of[label]} rows)" for label in unknown)
        raise LabelError(
            f"Labels that AI Hub 71631 does not have: {counts}. Known are 기쁨, 놀라움, 두려움, "
            f"사랑스러움, 슬픔, 화남 and {NONE}. Correct them in the label files."
        )


def _heard(
    recordings: Sequence[Recording], audio: Mapping[str, Sequence[Path]], collector: Collector
) -> Iterator[tuple[Recording, Path]]:
    """Recordings with one audio file; others count as one row each, not as their utterances."""
    for recording in recordings:
        paths = audio.get(recording.name, ())
        n_utterances = f"{len(recording.utterances)} utterances"
        if not paths:
            collector.leave_out(recording.name, "recording without audio file", n_utterances)
        elif not have_same_bytes(paths):
            where = ", ".join(f"'{path}'" for path in paths)
            collector.leave_out(recording.name, "different audio files of one name", where)
        elif not recording.utterances:
            collector.leave_out(recording.name, "recording without utterances", n_utterances)
        else:
            yield recording, paths[0]


def _find_channels(heard: Sequence[tuple[Recording, Path]]) -> list[ChannelMap]:
    dialogues = (
        Dialogue(
            str(path),
            tuple(
                Turn(utterance.speaker_no, utterance.start, utterance.end)
                for utterance in recording.utterances
                if utterance.start is not None and utterance.end is not None
            ),
        )
        for recording, path in heard
    )
    n_workers = available_cores() if len(heard) >= _WORTH_WORKERS else 1
    return list(iter_map(ChannelFinder, dialogues, n_workers=n_workers, chunk_size=4))


def _add(
    collector: Collector, recording: Recording, path: Path, channels: ChannelMap, policy: str
) -> None:
    for number, utterance in enumerate(recording.utterances, start=1):
        name = f"{recording.name}_{number:04d}"
        person = recording.people.get(utterance.speaker_no, {})
        speaker = str(person.get("ID") or "").strip()
        if utterance.start is None or utterance.end is None:
            collector.leave_out(name, "unusable time")
        elif policy not in utterance.labels:
            collector.leave_out(name, "no label")
        elif not speaker:
            collector.leave_out(name, "no speaker id", utterance.speaker_no)
        else:
            collector.add(
                id=name,
                path=str(path),
                start=utterance.start,
                end=utterance.end,
                channel=channels.channel_of.get(utterance.speaker_no),
                label=utterance.labels[policy],
                votes=[
                    {"label": label, "intensity": utterance.levels[source]}
                    for source, label in utterance.labels.items()
                ],
                speaker=f"{recording.corpus}-{speaker}",
                session=recording.name,
                gender=canonical_gender(person.get("Gender")),
                age=whole_years(person.get("Age")),
                text=utterance.text,
                corpus=recording.corpus,
            )


def _notes(maps: Sequence[ChannelMap]) -> Iterator[str]:
    measured = [each for each in maps if each.channel_of]
    if measured:
        n_swapped = sum(each.channel_of.get("Speaker1") == 1 for each in measured)
        yield (
            f"The channels of {len(measured):,} recordings were measured; in {n_swapped:,} of them "
            f"Speaker1 has the second."
        )
    for why, count in Counter(each.why_not for each in maps if each.why_not).most_common():
        yield f"{count:,} recordings are heard on all channels: {why}."
