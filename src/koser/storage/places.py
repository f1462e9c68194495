"""Where a file is: a path of this machine, or the URL of an object."""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path, PurePosixPath
from typing import TypeAlias

# A URL is always a `str`: pathlib would make one slash of "s3://"'s two.
Place: TypeAlias = str | Path

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_SQUEEZED = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)")


def is_url(place: str | os.PathLike[str]) -> bool:
    """Whether `place` is a URL such as ``s3://bucket/key``, for fsspec and not for the disk.

    Examples
    --------
    >>> is_url("s3://calls/a.wav"), is_url("calls/a.wav"), is_url(Path("s3://calls/a.wav"))
    (True, False, False)
    """
    return isinstance(place, str) and _URL.match(place) is not None


def squeezed_url(path: str | os.PathLike[str]) -> str | None:
    """The URL that `path` was before pathlib took one of its slashes, or None if it was none.

    Examples
    --------
    >>> squeezed_url(Path("s3://calls/a.wav"))
    's3://calls/a.wav'
    >>> squeezed_url("calls/a.wav") is None
    True
    """
    text = os.fspath(path)
    found = _SQUEEZED.match(text)
    return None if found is None else f"{found[1]}://{text[found.end() :]}"


def name_of(place: Place) -> PurePosixPath:
    """The last part of a path or URL, for its ``stem`` and ``suffix``.

    Examples
    --------
    >>> name_of("s3://calls/2026/table.csv").stem, name_of("s3://calls/").name
    ('table', 'calls')
    """
    return PurePosixPath(PurePosixPath(str(place)).name)


def folder_of(place: Place) -> Place:
    """The folder that a path or URL is in.

    Examples
    --------
    >>> folder_of("s3://calls/2026/table.csv")
    's3://calls/2026'
    """
    return place.parent if isinstance(place, Path) else place.rpartition("/")[0]


def join(root: str, relative: str) -> str:
    """The URL of what `relative` names as seen from the folder `root`.

    Examples
    --------
    >>> join("s3://calls/tables/", "../sound/a.wav"), join("memory://x", "./y/z.wav")
    ('s3://calls/sound/a.wav', 'memory://x/y/z.wav')
    """
    scheme, _, rest = root.partition("://")
    authority, _, key = rest.partition("/")
    # From "/": no number of ".." leads out of the bucket.
    joined = posixpath.normpath(posixpath.join("/", key, relative))
    return f"{scheme}://{authority}{joined}"
