"""Anyone's own recordings, sorted into one folder per label: ``<label>/*.wav``."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from pathlib import Path, PurePosixPath

from koser.audio.listing import AUDIO_SUFFIXES, audio_in
from koser.data.corpora.collecting import Collector
from koser.data.corpora.survey import Survey
from koser.data.manifest import Manifest
from koser.engines.engine import Engine
from koser.engines.local import SERIAL
from koser.errors import ConfigError, CorpusError
from koser.labels import canonical_label, is_known
from koser.storage.places import Place, is_url, name_of


def label_folders(survey: Survey) -> list[str]:
    """Folders of `survey`, relative to its root, that hold sound and are called as an emotion is.

    Labels that someone gave are not to be replaced by what an adapter reads from file names.
    Under any other name they cannot be told from folders of speakers or sessions.
    """
    found: set[str] = set()
    for name in survey.names:
        if name.lower().endswith(AUDIO_SUFFIXES):
            above = (str(path) for path in PurePosixPath(name).parents)
            found.update(path for path in above if is_known(path.rpartition("/")[2]))
    return sorted(found)


def prepare(
    root: Place, *, speaker_pattern: str | None = None, engine: Engine = SERIAL
) -> Manifest:
    r"""Read every audio file below the label folders of `root`.

    Parameters
    ----------
    root : Place
        Folder of label folders, or the URL of such a prefix. Their names are labels after
        `koser.labels.canonical_label`, so ``슬픔`` and ``sad`` are both sadness.
    speaker_pattern : str, optional
        Regular expression that finds the speaker in a file's path relative to `root`
        (with ``/``, in NFC), as its group ``speaker`` or its only group: ``r"_(F\d+)_"``.
        Without it nothing is known about speakers, and no speaker-independent split is possible.
    engine : Engine
        Where the audio's headers are read.

    Returns
    -------
    Manifest
        One row per audio file; its id is the relative path without suffix. Audio beside the
        label folders is left out and reported.

    Raises
    ------
    ConfigError
        If `speaker_pattern` is no regular expression with one such group.
    CorpusError
        If `speaker_pattern` finds no speaker in some file, or no utterance is found.

    Notes
    -----
    With ``speaker_pattern=r"^[^/]+/(\w+)/"`` the folder below the label is the speaker.
    """
    pattern = None if speaker_pattern is None else _compile(speaker_pattern)
    collector = Collector("folder", root, corpus=_name(root), language=None, engine=engine)
    spellings: dict[str, set[str]] = defaultdict(set)
    without_speaker = []
    files = audio_in(root)
    stem = str(root).rstrip("/")
    for path in files:
        relative = unicodedata.normalize("NFC", path.removeprefix(stem).lstrip("/"))
        folder, _, rest = relative.partition("/")
        if not rest:
            collector.leave_out(relative, "not in a label folder")
            continue
        label = canonical_label(folder)
        spellings[label].add(folder)
        speaker = None
        if pattern is not None:
            match = pattern.search(relative)
            speaker = match[pattern.groupindex.get("speaker", 1)] if match else None
            if not speaker:
                without_speaker.append(relative)
        identifier = relative.removesuffix(PurePosixPath(path).suffix)
        collector.add(id=identifier, path=path, label=label, speaker=speaker)
    if without_speaker:
        raise CorpusError(
            f"The speaker pattern '{speaker_pattern}' finds no speaker in "
            f"{len(without_speaker)} of {len(files)} files, such as "
            f"{', '.join(without_speaker[:3])}. Correct the pattern or rename the files."
        )
    for label, folders in sorted(spellings.items()):
        if len(folders) > 1:
            collector.note(f"The folders {', '.join(sorted(folders))} are all read as '{label}'.")
    return collector.manifest(
        label_policy="folder name", grouping=None if pattern is None else "speaker"
    )


def _name(root: Place) -> str:
    return (name_of(root) if is_url(root) else Path(root).resolve()).name or "folder"


def _compile(speaker_pattern: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(speaker_pattern)
    except re.error as error:
        raise ConfigError(
            f"The speaker pattern '{speaker_pattern}' is no regular expression: {error}."
        ) from error
    if "speaker" not in pattern.groupindex and pattern.groups != 1:
        raise ConfigError(
            f"The speaker pattern '{speaker_pattern}' has {pattern.groups} groups. Put what names "
            f"the speaker into one pair of parentheses, or name that group: (?P<speaker>…)."
        )
    return pattern
