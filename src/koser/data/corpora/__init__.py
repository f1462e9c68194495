"""Corpus adapters: one file per corpus, each a `prepare(root) -> Manifest`.

An adapter whose corpus can be told by its files also has a `recognise(survey)`, which says
why a folder looks like it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from shlex import quote
from typing import Any

from koser.data.corpora import (
    aihub58,
    aihub259,
    aihub263,
    aihub466,
    aihub637,
    aihub71631,
    emodb,
    emotiontts,
    folder,
    hikia,
    kemdy19,
    kemdy20,
    kemocon,
    nemo,
    ravdess,
    table,
)
from koser.data.corpora.survey import Survey, survey
from koser.data.manifest import Manifest
from koser.engines.engine import Engine
from koser.engines.local import SERIAL
from koser.errors import ConfigError, CorpusError
from koser.storage.places import Place, is_url

# Name of a corpus, as the command line knows it -> what makes its manifest.
ADAPTERS: dict[str, Callable[..., Manifest]] = {
    "aihub58": aihub58.prepare,
    "aihub259": aihub259.prepare,
    "aihub263": aihub263.prepare,
    "aihub466": aihub466.prepare,
    "aihub637": aihub637.prepare,
    "aihub71631": aihub71631.prepare,
    "aihub71632": aihub71631.prepare_youths,
    "emodb": emodb.prepare,
    "emotiontts": emotiontts.prepare,
    "folder": folder.prepare,
    "hikia": hikia.prepare,
    "kemdy19": kemdy19.prepare,
    "kemdy20": kemdy20.prepare,
    "kemocon": kemocon.prepare,
    "nemo": nemo.prepare,
    "ravdess": ravdess.prepare,
    "table": table.prepare,
}

# Those that read object storage too; the others read many small tables and folders.
ON_URLS = ("folder", "table")

AUTO = "auto"  # in place of a name: `recognise` chooses
SORTED = "folder"  # the adapter of sound in folders of labels

# Name of a corpus -> why a folder looks like it, or None.
RECOGNISERS: dict[str, Callable[[Survey], str | None]] = {
    "aihub58": aihub58.recognise,
    "aihub259": aihub259.recognise,
    "aihub263": aihub263.recognise,
    "aihub466": aihub466.recognise,
    "aihub637": aihub637.recognise,
    "aihub71631": aihub71631.recognise,
    "aihub71632": aihub71631.recognise_youths,
    "emodb": emodb.recognise,
    "emotiontts": emotiontts.recognise,
    "hikia": hikia.recognise,
    "kemdy19": kemdy19.recognise,
    "kemdy20": kemdy20.recognise,
    "kemocon": kemocon.recognise,
    "nemo": nemo.recognise,
    "ravdess": ravdess.recognise,
}


@dataclass(frozen=True)
class Recognition:
    """Which corpus a folder is.

    Attributes
    ----------
    corpus : str
        Its name in `ADAPTERS`.
    reason : str
        What was found that says so.
    """

    corpus: str
    reason: str


def likenesses(seen: Survey) -> dict[str, str]:
    """Every corpus that a folder looks like, and why.

    `SORTED` is among them if it looks like one whose sound someone has sorted into folders of
    labels.
    """
    found = {name: reason for name, look in RECOGNISERS.items() if (reason := look(seen))}
    if found and (labelled := folder.label_folders(seen)):
        found[SORTED] = f"sound in folders named by emotions: {', '.join(labelled[:3])}"
    return found


def recognise(root: Path) -> Recognition:
    """Tell by its file names, and the beginnings of a few files, which corpus a folder is.

    Parameters
    ----------
    root : Path
        A corpus's folder, or any folder above it.

    Raises
    ------
    CorpusError
        If it looks like none of `RECOGNISERS`, like several, or like one whose sound someone
        has sorted into folders of labels.
    """
    seen = survey(root)
    found = likenesses(seen)
    if len(found) == 1:
        return Recognition(*found.popitem())
    if found:
        roots = dict.fromkeys(found, root)
        if SORTED in found:
            roots[SORTED] = root / PurePosixPath(folder.label_folders(seen)[0]).parent
        why = "; ".join(f"{name} ({reason})" for name, reason in found.items())
        ways = ", or ".join(
            f"koser prepare {name} {quote(str(roots[name]))} --out M.parquet" for name in found
        )
        raise CorpusError(
            f"'{root}' looks like several corpora: {why}. Give the folder of one, or name the one "
            f"you mean: {ways}"
        )
    raise CorpusError(
        f"'{root}' looks like no corpus koser knows ({len(seen.paths):,} files looked at, for "
        f"{', '.join(RECOGNISERS)}). If its folders are labels: koser prepare folder "
        f"{quote(str(root))} --out M.parquet; if a table lists its files: koser prepare table FILE "
        f"--out M.parquet"
    )


def prepare(
    corpus: str,
    root: Place,
    options: Mapping[str, Any] | None = None,
    *,
    engine: Engine = SERIAL,
) -> Manifest:
    """Make the manifest of a corpus.

    Parameters
    ----------
    corpus : str
        A name in `ADAPTERS`, or `AUTO`.
    root : Place
        The corpus's folder; for ``table`` the file. Of `ON_URLS` also a URL.
    options : Mapping[str, Any], optional
        Keyword arguments of the adapter, such as ``{"labels": "majority"}``.
    engine : Engine
        Where the audio's headers are read.

    Returns
    -------
    Manifest
        The validated manifest.

    Raises
    ------
    ConfigError
        If `corpus` is unknown, or the adapter does not take an option, or no URL.
    KoserError
        Whatever `recognise` or the adapter finds wrong with the corpus.
    """
    if is_url(root) and corpus not in ON_URLS and corpus in (AUTO, *ADAPTERS):
        raise ConfigError(
            f"'{corpus}' reads a folder of this machine, not '{root}'. Copy the corpus here; or "
            f"give a URL to 'folder', for <label>/*.wav, or to 'table', for a list of its files."
        )
    root = root if is_url(root) else Path(root)
    if corpus == AUTO:
        corpus = recognise(Path(root)).corpus
    if corpus not in ADAPTERS:
        raise ConfigError(
            f"No adapter for a corpus '{corpus}'. There are: {', '.join(ADAPTERS)}. "
            f"Bring your own data in with 'folder' or 'table'."
        )
    adapter, options = ADAPTERS[corpus], options or {}
    parameters = inspect.signature(adapter).parameters.values()
    taken = [each.name for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY]
    taken.remove("engine")
    unknown = sorted(set(options) - set(taken))
    if unknown:
        raise ConfigError(
            f"The '{corpus}' adapter takes no option {', '.join(unknown)}. "
            f"It takes: {', '.join(taken) or 'none'}."
        )
    return adapter(root, **options, engine=engine)
