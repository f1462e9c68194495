"""The open corpora that koser can fetch: where they are, under which terms, how they are proven."""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote

from koser.audio.listing import audio_files
from koser.data.corpora import SORTED, likenesses
from koser.data.corpora.survey import survey
from koser.data.download import (
    Expected,
    Progress,
    came_from,
    check_file,
    fetch,
    remove_fetched,
)
from koser.data.unpacking import is_sound, unpack
from koser.errors import ConfigError, DownloadError
from koser.files import replacing_folder

logger = logging.getLogger(__name__)

SOURCE_FILE = "SOURCE.txt"  # in every fetched folder: what it is, and under which terms


@dataclass(frozen=True)
class Release:
    """A corpus that may be downloaded.

    Attributes
    ----------
    corpus : str
        Name of its adapter.
    title, licence, terms, citation : str
        For people; `terms` says in a sentence or two what the licence asks.
    page : str
        Where its authors publish it, and its licence can be read.
    url : str
        The archive, a zip file.
    recording : str
        Regular expression of what its recordings are called, without suffix.
    n_recordings : int
        How many different ones it has at least.
    expected : Expected
        Size and digest of the archive, where its publisher gives them.
    inside : str or None
        The folder in the archive that is the corpus.
    """

    corpus: str
    title: str
    licence: str
    terms: str
    citation: str
    page: str
    url: str
    recording: str
    n_recordings: int
    expected: Expected = field(default_factory=Expected)
    inside: str | None = None

    def describe(self) -> str:
        """What a user has to know before accepting, some lines."""
        return (
            f"{self.title}\n"
            f"Licence: {self.licence}. {self.terms}\n"
            f"Cite: {self.citation}\n"
            f"Published at: {self.page}"
        )


_NONCOMMERCIAL = (
    "Attribution, no commercial use, share alike. Whether that binds a model trained on it is "
    "yours to judge."
)

RELEASES = {
    release.corpus: release
    for release in (
        Release(
            corpus="emotiontts",
            title="emotiontts_open_db, emotional part of the public sample (Korean, 4 emotions)",
            licence="CC BY-NC-SA 4.0, research use only",
            terms=_NONCOMMERCIAL,
            citation="KAIST and Selvas AI, emotiontts_open_db, project no. 10080667.",
            page="https://github.com/emotiontts/emotiontts_open_db",
            url="https://github.com/emotiontts/emotiontts_open_db/archive/"
            "8b4e9ba90839a7dbdf00dbae3ef261b8f947120d.zip",
            recording=r"(ne|em)[a-z]\d{5}",
            n_recordings=200,  # of the first part; how many the second has is not known
            inside="Dataset/SpeechCorpus/Emotional",
        ),
        Release(
            corpus="ravdess",
            title="RAVDESS, speech (English, 24 actors, 8 emotions)",
            licence="CC BY-NC-SA 4.0",
            terms=_NONCOMMERCIAL,
            citation="Livingstone & Russo, PLoS ONE 13(5): e0196391, 2018.",
            page="https://zenodo.org/records/1188976",
            url="https://zenodo.org/records/1188976/files/Audio_Speech_Actors_01-24.zip?download=1",
            recording=r"03-01(-\d\d){5}",  # the others are video and song
            n_recordings=1_440,
            expected=Expected(208_468_073, "md5:bc696df654c87fed845eb13823edef8a"),
        ),
        Release(
            corpus="emodb",
            title="EmoDB, Berlin Database of Emotional Speech (German, 10 speakers, 7 emotions)",
            licence="koser knows of no formal one",
            terms="Its authors offer it for download; read their page for what is allowed.",
            citation='Burkhardt et al., "A Database of German Emotional Speech", Interspeech 2005.',
            page="http://emodb.bilderbar.info",
            url="http://emodb.bilderbar.info/download/download.zip",
            recording=r"\d\d[ab]\d\d[A-Z][a-z]",
            n_recordings=535,
        ),
        Release(
            corpus="nemo",
            title="nEMO (Polish, 9 actors, 6 emotions)",
            licence="CC BY-NC-SA 4.0",
            terms=_NONCOMMERCIAL,
            citation='Christop, "nEMO: Dataset of Emotional Speech in Polish", LREC-COLING 2024.',
            page="https://github.com/amu-cai/nEMO",
            url="https://github.com/amu-cai/nEMO/archive/"
            "06f1f83dde8f1a780443a57d53b2af3971af34ab.zip",
            recording=r"[A-Z]{2}\d_[a-z]+_\d+",
            n_recordings=4_481,
        ),
    )
}


@dataclass(frozen=True)
class Acquired:
    """A corpus on the disk.

    Attributes
    ----------
    folder : Path
        Where it is.
    proof : str
        What shows that it is what its authors publish; empty where it had been fetched
        before and nothing was done.
    """

    folder: Path
    proof: str = ""


def find_release(corpus: str, *, url: str | None = None) -> Release:
    """The release of `corpus`, from another address if `url` is given.

    Raises
    ------
    ConfigError
        If koser cannot fetch that corpus.
    """
    if corpus not in RELEASES:
        raise ConfigError(
            f"koser cannot fetch '{corpus}', only {', '.join(RELEASES)}. Others need an agreement "
            f"of your own: docs/corpora.md says where to ask for them."
        )
    return RELEASES[corpus] if url is None else replace(RELEASES[corpus], url=url)


def get(
    release: Release,
    folder: Path,
    *,
    accept: Callable[[Release], bool],
    source: Path | None = None,
    progress: Progress | None = None,
) -> Acquired:
    """Put a corpus into `folder`, unpacked; `folder` appears whole or not at all.

    An archive is fetched to ``<folder>.zip`` and removed in the end. One that is there is not
    fetched again: neither what a call that was killed has left, nor a copy that someone has put
    there, which stays.

    Parameters
    ----------
    release : Release
        What to get.
    folder : Path
        Where it goes: a folder that is not there, or one that this function made.
    accept : Callable[[Release], bool]
        Asks the user for the licence; nothing is fetched or copied unless it says yes.
    source : Path, optional
        A local copy instead of a download: the archive, or the unpacked folder.
    progress : Progress, optional
        Called with bytes, first of the download, then of the unpacking.

    Raises
    ------
    DownloadError
        If the licence is not accepted; `folder` holds something else; `source` is missing or
        holds `folder`; the download fails or is not the published file; or what came is not
        this corpus, or not the whole of it.
    """
    if (folder / SOURCE_FILE).is_file():
        return Acquired(folder)
    if folder.exists():
        raise DownloadError(
            f"'{folder}' is there already and was not made by koser get. Choose another with --to."
        )
    if source is not None and not source.exists():
        raise DownloadError(f"No file or folder at '{source}'. Check what follows --from.")
    if source is not None and folder.resolve().is_relative_to(source.resolve()):
        raise DownloadError(
            f"'{folder}' lies inside '{source}', which would be copied into itself. Choose a "
            f"folder outside it with --to, or give --from the part of it that is the corpus."
        )
    if not accept(release):
        raise DownloadError(
            f"The licence of {release.corpus} was not accepted, so nothing was fetched. Read it at "
            f"{release.page}, then answer yes or add --accept-licence."
        )
    copy = _at_hand(source, folder) or _download(release, folder, progress)
    try:
        with replacing_folder(folder) as partial:
            partial.mkdir()
            if copy.is_folder:
                _refuse_endless(copy.path, target=folder.resolve())
                shutil.copytree(copy.path, partial, dirs_exist_ok=True)
            else:
                if not copy.is_fetched:
                    check_file(copy.path, release.expected, name=copy.origin)
                unpack(copy.path, partial, inside=release.inside, progress=progress)
            proof = _prove(partial, release, copy)
            text = f"{release.describe()}\nFetched from: {copy.origin} ({proof})\n"
            (partial / SOURCE_FILE).write_text(text, encoding="utf-8")
    except DownloadError:
        raise
    except OSError as error:
        raise DownloadError(
            f"Cannot write '{folder}': {_reason(error)}. Make room or use --to."
        ) from error
    if copy.is_fetched:
        remove_fetched(copy.path)
    return Acquired(folder, proof)


@dataclass(frozen=True)
class _Copy:
    """What a corpus is made from, and whether koser fetched it: the user's own stays."""

    path: Path
    origin: str  # an address, or a path as the user knows it
    is_fetched: bool = False

    @property
    def is_folder(self) -> bool:
        return self.path.is_dir()


def _archive_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.zip")


def _at_hand(source: Path | None, folder: Path) -> _Copy | None:
    """What the user has: `source`, or an archive beside `folder` that koser did not fetch."""
    archive = _archive_of(folder)
    if source is None and archive.is_file() and came_from(archive) is None:
        source = archive
    return None if source is None else _Copy(source, str(source))


def _download(release: Release, folder: Path, progress: Progress | None) -> _Copy:
    """The archive, fetched now or by an earlier call that did not come to its end."""
    archive = _archive_of(folder)
    copy = _Copy(archive, release.url, is_fetched=True)
    origin = came_from(archive)
    if origin == release.url:
        if _is_as_published(archive, release):
            return copy
        logger.warning("'%s' is damaged. It is removed and fetched again.", archive)
    if origin is not None:
        remove_fetched(archive)
    fetch(release.url, archive, expected=release.expected, progress=progress)
    return copy


def _is_as_published(archive: Path, release: Release) -> bool:
    try:
        check_file(archive, release.expected, name=str(archive))
    except DownloadError:
        return False
    return is_sound(archive)


def _refuse_endless(source: Path, *, target: Path, above: tuple[Path, ...] = ()) -> None:
    """Refuse links to folders that hold what is being copied, or where it goes.

    Other links are followed, to files and to folders: a corpus may lie on several disks, and the
    copy is to stand by itself.
    """
    real = source.resolve()
    if any(each.is_relative_to(real) for each in (*above, target)):
        raise DownloadError(
            f"'{source}' is a link to '{real}', which would be copied into itself. Remove the "
            f"link, or give --from a folder without it."
        )
    with os.scandir(source) as entries:
        folders = sorted(entry.path for entry in entries if entry.is_dir())
    for each in folders:
        _refuse_endless(Path(each), target=target, above=(*above, real))


def _reason(error: OSError) -> str:
    """`error` in a line; what stopped the copy of a folder is a list of all files that failed."""
    if not isinstance(error, shutil.Error):
        return str(error)
    first, *others = error.args[0]
    return f"{first[-1]}" + (f", and {len(others)} files more" if others else "")


def _prove(folder: Path, release: Release, copy: _Copy) -> str:
    """What shows that the corpus in `folder` is the published one; refuse what is not."""
    found = likenesses(survey(folder))
    stems = {path.stem for path in audio_files(folder)}
    n_found = sum(re.fullmatch(release.recording, stem) is not None for stem in stems)
    held = f"holds {n_found:,} of the {release.n_recordings:,} recordings of {release.corpus}"
    problem, way_on = "", "Check the address or the copy."
    if release.corpus not in found:
        what = f"but {', '.join(found)}" if found else "nor any corpus koser knows"
        problem = f"holds no {release.corpus}, {what}"
    elif others := {name: reason for name, reason in found.items() if name != release.corpus}:
        problem = f"{held}, but not as published: there is {_listed(others)}"
        if SORTED in others and copy.is_folder:
            way_on = (
                f"Give --from the archive, or a folder as the archive has it; or use yours where "
                f"it is: koser prepare {release.corpus} {quote(str(copy.path))} "
                f"--out {release.corpus}.parquet"
            )
    elif n_found < release.n_recordings:
        problem = held
    if problem:
        if copy.is_fetched:
            remove_fetched(copy.path)  # or the next call would take it again
        raise DownloadError(f"'{copy.origin}' {problem}. {way_on}")
    return _proof(release, copy)


def _listed(others: Mapping[str, str]) -> str:
    """What is found beside a corpus, by name or by how its files lie."""
    return ", and ".join(
        reason if name == SORTED else f"{name}, {reason}" for name, reason in others.items()
    )


def _proof(release: Release, copy: _Copy) -> str:
    """What was checked, and nothing else."""
    whole = f"at least {release.n_recordings:,} recordings"
    if copy.is_folder:
        return f"a copy of a folder, checked only to hold {whole}"
    if release.expected.digest is not None:
        return f"checked against {release.expected.digest}"
    is_plain = copy.is_fetched and copy.origin.startswith("http:")
    return (
        f"its publisher gives no digest: checked are only the archive's own checksums, and that "
        f"it holds {whole}{'; it came over plain http' if is_plain else ''}"
    )
