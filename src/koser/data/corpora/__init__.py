"""Corpus adapters: one file per corpus, each a `prepare(root) -> Manifest`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from koser.data.corpora import aihub263, emodb, emotiontts, folder, ravdess, table
from koser.data.manifest import Manifest
from koser.errors import ConfigError

# Name of a corpus, as the command line knows it -> what makes its manifest.
ADAPTERS: dict[str, Callable[..., Manifest]] = {
    "aihub263": aihub263.prepare,
    "emodb": emodb.prepare,
    "emotiontts": emotiontts.prepare,
    "folder": folder.prepare,
    "ravdess": ravdess.prepare,
    "table": table.prepare,
}


def prepare(corpus: str, root: Path, options: Mapping[str, Any] | None = None) -> Manifest:
    """Make the manifest of a corpus.

    Parameters
    ----------
    corpus : str
        A name in `ADAPTERS`.
    root : Path
        The corpus's folder; for ``table`` the file.
    options : Mapping[str, Any], optional
        Keyword arguments of the adapter, such as ``{"labels": "majority"}``.

    Returns
    -------
    Manifest
        The validated manifest.

    Raises
    ------
    ConfigError
        If `corpus` is unknown, or the adapter does not take an option.
    KoserError
        Whatever the adapter finds wrong with the corpus.
    """
    if corpus not in ADAPTERS:
        raise ConfigError(
            f"No adapter for a corpus '{corpus}'. There are: {', '.join(ADAPTERS)}. "
            f"Bring your own data in with 'folder' or 'table'."
        )
    adapter, options = ADAPTERS[corpus], options or {}
    parameters = inspect.signature(adapter).parameters.values()
    taken = [each.name for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY]
    unknown = sorted(set(options) - set(taken))
    if unknown:
        raise ConfigError(
            f"The '{corpus}' adapter takes no option {', '.join(unknown)}. "
            f"It takes: {', '.join(taken) or 'none'}."
        )
    return adapter(root, **options)
