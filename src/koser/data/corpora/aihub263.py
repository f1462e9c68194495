"""AI Hub 263, 「감정 분류를 위한 대화 음성 데이터셋」: the corpus koser exists for.

Source
    https://aihub.or.kr, data set 263. Each user needs an agreement of their own, which
    forbids passing on the data or what is derived from it, manifests included.
Size
    43,991 rows in three releases, 43,975 of them with audio (48 kHz, mono, 16 bit, mean
    4.9 s). 16 rows of the first release have no audio, and 16 audio files no row.
Labels
    ``상황``, the scripted emotion, and the votes of five raters with intensities 0–2.
    The first two releases have five emotions, happiness and surprise come with the third:
    the release predicts the class.
Speakers
    There is no speaker id. Age × gender gives 59 groups, each one person or several: what
    koser calls ``group(age×gender)`` and some call "59 speakers".
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from koser.audio.listing import AUDIO_SUFFIXES, find_files
from koser.data.corpora.aihub263_tables import N_RATERS, RELEASES, Row, named, read_rows
from koser.data.corpora.archives import name_packed, nothing_found
from koser.data.corpora.collecting import Collector, have_same_bytes, paths_by_stem
from koser.data.corpora.survey import Survey
from koser.data.corpora.votes import Decision, check_policy, decide, vote_shares
from koser.data.manifest import Manifest
from koser.engines.engine import Engine
from koser.engines.local import SERIAL
from koser.errors import CorpusError, LabelError
from koser.labels import EMOTIONS, ordered_labels

# A pause longer than this starts a new session; 96–98 % of neighbours are closer.
SESSION_GAP = 600.0  # seconds

LabelPolicy = Literal["situation", "majority", "soft"]

_OBJECT_ID = re.compile(r"[0-9a-f]{24}")  # of MongoDB; its first 8 digits are Unix time


def recognise(survey: Survey) -> str | None:
    """Say why `survey` looks like this corpus; None if it does not."""
    names = {name for release in RELEASES for name in (*release.tables, *release.archives)}
    found = survey.matching(lambda name: name.casefold() in names)
    return f"the CSV files or zips of its releases ({found[0]})" if found else None


def prepare(
    root: Path,
    *,
    labels: LabelPolicy = "situation",
    min_votes: int | None = None,
    engine: Engine = SERIAL,
) -> Manifest:
    """Read the releases that lie below `root`.

    CSV files are found by name and audio by id, at any depth. Rows without usable audio,
    age, gender or label are left out and reported; repeated ids are settled by `Collector`.

    Parameters
    ----------
    root : Path
        Folder with the CSV files and the unpacked zips.
    labels : {"situation", "majority", "soft"}
        Where labels come from; see `koser.data.corpora.votes.decide`. With
        ``"soft"`` every row also has the distribution of its votes over the labels.
    min_votes : int, optional
        With ``"majority"``, how many of the five raters must have chosen the label.
    engine : Engine
        Where the audio's headers are read.

    Returns
    -------
    Manifest
        Utterances of the releases found, in order of release and row.

    Raises
    ------
    ConfigError
        If `labels` is unknown or `min_votes` does not fit it.
    CorpusError
        If no CSV file is found, one is damaged or there twice with other content, a zip is
        not unpacked, or no row is left.
    LabelError
        If a label is none of the seven or their known aliases.
    """
    check_policy(labels, min_votes, policies=get_args(LabelPolicy), n_raters=N_RATERS)
    collector = Collector("aihub263", root, corpus="aihub263", language="ko", engine=engine)
    files = find_files(root, (*AUDIO_SUFFIXES, ".csv", ".zip"))
    rows = _read_releases(root, files, collector)
    _refuse_unknown_labels(rows)
    audio = paths_by_stem(path for path in files if path.suffix.lower() in AUDIO_SUFFIXES)
    _refuse_packed_releases(rows, audio, files)
    kept: list[tuple[Row, Path, str]] = []
    for row in rows:
        path, decision = _settle(row, audio, labels, min_votes)
        if path is None or decision.label is None:
            collector.leave_out(row.wav_id, decision.reason, decision.detail)
        else:
            kept.append((row, path, decision.label))
    classes = {label for _, _, label in kept}
    if labels == "soft":
        classes.update(vote.label for row, _, _ in kept for vote in row.votes)
    classes_in_order = ordered_labels(classes)
    sessions = _sessions(rows)
    for row, path, label in kept:
        votes = [{"label": vote.label, "intensity": vote.intensity} for vote in row.votes]
        collector.add(
            id=row.wav_id,
            path=str(path),
            label=label,
            situation=row.situation,
            votes=votes or None,
            distribution=vote_shares(row.votes, classes_in_order) if labels == "soft" else None,
            group=f"{row.age}-{row.gender}",
            session=sessions.get(row.wav_id),
            release=row.release,
            gender=row.gender,
            age=row.age,
            text=row.text,
        )
    _report_orphans(rows, audio, collector)
    for note in _notes(rows, audio, labels):
        collector.note(note)
    return collector.manifest(
        label_policy=labels if min_votes is None else f"{labels} (at least {min_votes} votes)",
        grouping="group(age×gender)",
        labels=classes_in_order if labels == "soft" else None,
    )


def _settle(
    row: Row, audio: Mapping[str, Sequence[Path]], policy: LabelPolicy, min_votes: int | None
) -> tuple[Path | None, Decision]:
    paths = audio.get(row.wav_id, ())
    if not paths and _has_id(row):
        return None, Decision(None, "no audio file", f"release {row.release}")
    if row.defect:
        return None, Decision(None, row.defect, row.detail)
    if not have_same_bytes(paths):
        where = ", ".join(f"'{path}'" for path in paths)
        return None, Decision(None, "different audio files of one name", where)
    return paths[0], decide(row.situation, row.votes, policy=policy, min_votes=min_votes)


def _has_id(row: Row) -> bool:
    return row.defect not in ("malformed row", "no wav_id")


def _read_releases(root: Path, files: Sequence[Path], collector: Collector) -> list[Row]:
    rows: list[Row] = []
    missing = []
    for release in RELEASES:
        paths = named(files, release.tables)
        if not paths:
            missing.append(release)
            continue
        of_release = read_rows(paths[0], release.name)
        for copy in paths[1:]:
            if read_rows(copy, release.name) != of_release:
                raise CorpusError(
                    f"Release {release.name} has two CSV files with different rows: "
                    f"'{paths[0]}' and '{copy}'. Move the wrong one out of '{root}'."
                )
        rows += of_release
        if len(of_release) != release.n_rows:
            collector.note(
                f"Release {release.name} has {len(of_release):,} rows here, "
                f"{release.n_rows:,} in the official file."
            )
    if len(missing) == len(RELEASES):
        names = ", ".join(name for release in RELEASES for name in release.tables)
        others = ", ".join(path.name for path in files if path.suffix.lower() == ".csv") or "none"
        raise nothing_found(
            f"No CSV file of AI Hub 263 below '{root}' (looked for: {names}; other CSV files: "
            f"{others}).",
            root,
            "Put the CSV files and the unpacked zips of the releases there.",
        )
    for release in missing:
        collector.note(f"Release {release.name} is not there (no {' or '.join(release.tables)}).")
    return rows


def _refuse_unknown_labels(rows: Sequence[Row]) -> None:
    n_rows_of: Counter[str] = Counter()
    for row in rows:
        named_here = {vote.label for vote in row.votes}
        if row.situation is not None:
            named_here.add(row.situation)
        n_rows_of.update(named_here)
    unknown = sorted(set(n_rows_of) - set(EMOTIONS))
    if unknown:
        counts = ", ".join(f"'{label}' ({n_rows_of[label]} rows)" for label in unknown)
        raise LabelError(
            f"Labels that AI Hub 263 does not have: {counts}. Known are {', '.join(EMOTIONS)} "
            f"and their aliases. Correct them in the CSV files."
        )


def _refuse_packed_releases(
    rows: Sequence[Row], audio: Mapping[str, Sequence[Path]], files: Sequence[Path]
) -> None:
    unpacked = {row.release for row in rows if row.wav_id in audio}
    read = {row.release for row in rows}
    packed = [
        path
        for release in RELEASES
        if release.name in read - unpacked
        for path in named(files, release.archives)
    ]
    if packed:
        raise CorpusError(name_packed(packed))


def _report_orphans(
    rows: Sequence[Row], audio: Mapping[str, Sequence[Path]], collector: Collector
) -> None:
    ids = {row.wav_id for row in rows}
    n_unlisted = 0
    for stem, paths in audio.items():
        if stem not in ids:
            n_unlisted += 1
            collector.leave_unlisted(paths)
    read = [release for release in RELEASES if any(row.release == release.name for row in rows)]
    silent = Counter(row.release for row in rows if _has_id(row) and row.wav_id not in audio)
    for release in read:
        if silent[release.name]:
            what = f"{silent[release.name]:,} rows of release {release.name} have no audio file"
            collector.note(_against_official(what, silent[release.name], release.n_orphans))
    if n_unlisted:
        what = f"{n_unlisted:,} audio files have no row"
        n_official = sum(release.n_orphans for release in read)
        collector.note(_against_official(what, n_unlisted, n_official))


def _against_official(what: str, n_found: int, n_official: int) -> str:
    if n_found > n_official:
        return f"Warning: {what}, {n_found - n_official:,} more than in the official releases."
    return f"{what} (the official releases have {n_official})."


def _sessions(rows: Sequence[Row]) -> dict[str, str]:
    """Session of each id: one release and group, no pause longer than `SESSION_GAP`."""
    moments: dict[tuple[str, str], set[tuple[int, str]]] = defaultdict(set)
    for row in rows:
        if not row.defect and _OBJECT_ID.fullmatch(row.wav_id):
            moment = int(row.wav_id[:8], base=16)
            moments[row.release, f"{row.age}-{row.gender}"].add((moment, row.wav_id))
    sessions = {}
    for (release, group), of_group in moments.items():
        name, previous = "", float("-inf")
        for moment, wav_id in sorted(of_group):
            if moment - previous > SESSION_GAP:
                # named by its first second, so that other groups' rows cannot rename it
                start = datetime.fromtimestamp(moment, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                name = f"{release}/{group}/{start}"
            sessions[wav_id] = name
            previous = moment
    return sessions


def _notes(
    rows: Sequence[Row], audio: Mapping[str, Sequence[Path]], policy: LabelPolicy
) -> Iterator[str]:
    yield (
        "The corpus names no speakers: a group is everyone of one age and gender, one person or "
        "several, and a person with a birthday between two releases is in two groups."
    )
    if policy == "soft":
        yield (
            "Distributions are the raters' votes, not weighted by intensity (which is 0 exactly "
            "for neutral). The label is the plurality; a tie goes to the scripted emotion if it "
            "is among the tied, else to the first in label order."
        )
    n_copied = sum(len(paths) > 1 for paths in audio.values())
    if n_copied:
        yield f"{n_copied:,} audio files lie in more than one folder; the first path is used."
    n_incomplete = sum(_has_id(row) and len(row.votes) < N_RATERS for row in rows)
    if n_incomplete:
        yield f"{n_incomplete:,} rows have fewer than {N_RATERS} votes."
    n_odd = sum(row.n_odd_intensities for row in rows)
    if n_odd:
        yield (
            f"{n_odd:,} intensities are missing, no 0, 1 or 2 (then null), or contradict their "
            f"label (0 belongs to neutral and to nothing else)."
        )
    n_timeless = sum(_has_id(row) and not _OBJECT_ID.fullmatch(row.wav_id) for row in rows)
    if n_timeless:
        yield f"{n_timeless:,} ids are not 24 hexadecimal digits: their session is unknown."
