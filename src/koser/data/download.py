"""Fetch one file over HTTP: it goes on where it stopped, and is proven before it has its name."""

from __future__ import annotations

import hashlib
import http
import http.client
import json
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from koser.errors import DownloadError
from koser.files import write_atomically

# Called with the bytes done so far and their total, None where the server does not say.
Progress = Callable[[int, int | None], None]

_CHUNK = 2**20  # bytes
_TIMEOUT = 60.0  # seconds without a byte
_USER_AGENT = "koser"  # some servers refuse Python's own


@dataclass(frozen=True)
class Expected:
    """What is known of a file before it is fetched.

    Attributes
    ----------
    size : int or None
        Bytes.
    digest : str or None
        Algorithm and hexadecimal digest, such as ``"md5:bc69…"``, as the publisher gives it.
    """

    size: int | None = None
    digest: str | None = None


@dataclass(frozen=True)
class _Validator:
    """Which state of which file a half-fetched file is a part of."""

    url: str
    etag: str = ""
    modified: str = ""

    @property
    def condition(self) -> str:
        """What to send as ``If-Range``; blank where the server gave nothing that proves a state."""
        return self.modified if self.etag.startswith("W/") else self.etag or self.modified


def fetch(
    url: str, path: Path, *, expected: Expected | None = None, progress: Progress | None = None
) -> None:
    """Fetch `url` to `path`.

    What has come stands in ``<name>.part`` until it is complete and proven. Called again, the
    same fetch asks for the rest only, on the condition that the file on the server has not
    changed; where a server cannot do that, it starts again. Where a file came from stays beside
    it: see `came_from` and `remove_fetched`.

    Parameters
    ----------
    url : str
        ``http://`` or ``https://``.
    path : Path
        Where the file goes; its folder is made.
    expected : Expected, optional
        Size and digest to compare with.
    progress : Progress, optional
        Called as bytes arrive.

    Raises
    ------
    DownloadError
        If the server cannot be reached, refuses or breaks off; if the disk is too small or
        cannot be written; or if what came differs from `expected`, which is then deleted.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise DownloadError(f"'{url}' is no address to fetch from. Give one of http or https.")
    part, memory = _part_of(path), _memory_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        validator = _remembered(memory, url)
        n_kept = part.stat().st_size if validator.condition and part.exists() else 0
        response = _open(url, n_kept, validator)
        if response is not None:
            with response:
                n_kept, total = _begin(response, n_kept)
                _remember(memory, _validator_of(response, url))
                _refuse_small_disk(path.parent, total, n_kept)
                _copy(response, part, n_kept, total, progress)
        check_file(part, expected or Expected(), name=url)
        os.replace(part, path)
    except DownloadError:
        raise
    except (OSError, http.client.HTTPException) as error:
        n_bytes = part.stat().st_size if part.exists() else 0
        kept = f" {n_bytes:,} bytes are kept: run the same again to go on." if n_bytes else ""
        raise DownloadError(
            f"Cannot fetch '{url}': {_reason(error)}.{kept} Without a network, fetch it elsewhere "
            f"and give it with --from FILE."
        ) from error


def came_from(path: Path) -> str | None:
    """The address that `fetch` took the whole of `path` from; None if it did not."""
    memory = _read_memory(_memory_of(path))
    if memory is None or _part_of(path).exists() or not path.is_file():
        return None
    return memory.url


def remove_fetched(path: Path) -> None:
    """Remove a file that `fetch` made, and where it came from."""
    path.unlink(missing_ok=True)
    _memory_of(path).unlink(missing_ok=True)


def check_file(path: Path, expected: Expected, *, name: str) -> None:
    """Compare a file with what is known of it, and delete a ``.part`` that differs.

    Raises
    ------
    DownloadError
        With both sizes or digests.
    """
    found = {"size": f"{path.stat().st_size:,} bytes"}
    wanted = {} if expected.size is None else {"size": f"{expected.size:,} bytes"}
    if expected.digest is not None:
        algorithm, _, digest = expected.digest.partition(":")
        wanted[algorithm] = digest
        with path.open("rb") as file:
            found[algorithm] = hashlib.file_digest(file, algorithm).hexdigest()
    for what, value in wanted.items():
        if found[what] != value:
            way_on = "To fetch it, move this one away and leave --from out"
            if path.name.endswith(".part"):
                path.unlink()
                way_on = "It is deleted; run the same again"
            raise DownloadError(
                f"'{name}' is not the file that was published: {what} is {found[what]}, not "
                f"{value}. {way_on}; if that repeats, the publisher has changed the file."
            )


def _open(url: str, n_kept: int, validator: _Validator) -> http.client.HTTPResponse | None:
    """The answer to a request for what is missing; None if nothing is."""
    headers = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"}
    if n_kept:
        headers |= {"Range": f"bytes={n_kept}-", "If-Range": validator.condition}
    request = urllib.request.Request(url, headers=headers)
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not n_kept:
            raise
        if error.headers.get("Content-Range") == f"bytes */{n_kept}":
            return None
        # What is kept is no part of the file any more.
        return _open(url, 0, validator)
    return response


def _begin(response: http.client.HTTPResponse, n_kept: int) -> tuple[int, int | None]:
    """Bytes that still count, and the size of the whole file where the server says it."""
    length = response.headers.get("Content-Length")
    n_coming = int(length) if length and length.isdigit() else None
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        span = response.headers.get("Content-Range", "")
        if not span.startswith(f"bytes {n_kept}-"):
            raise DownloadError(
                f"'{response.url}' answered with another part than was asked for ('{span}'). "
                f"Delete the .part file and run the same again."
            )
        return n_kept, None if n_coming is None else n_kept + n_coming
    return 0, n_coming


def _copy(
    response: http.client.HTTPResponse,
    part: Path,
    n_kept: int,
    total: int | None,
    progress: Progress | None,
) -> None:
    n_done = n_kept
    with part.open("r+b" if n_kept else "wb") as file:
        file.seek(n_kept)
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            n_done += len(chunk)
            if progress is not None:
                progress(n_done, total)
        file.flush()
        os.fsync(file.fileno())
    # A connection that breaks off looks like an end.
    if total is not None and n_done < total:
        raise ConnectionError(f"the connection ended after {n_done:,} of {total:,} bytes")


def _refuse_small_disk(folder: Path, total: int | None, n_kept: int) -> None:
    free = shutil.disk_usage(folder).free
    if total is not None and total - n_kept > free:
        raise DownloadError(
            f"'{folder}' has {free / 1e9:.1f} GB free, and {(total - n_kept) / 1e9:.1f} GB are to "
            f"come. Make room, or choose another folder with --to."
        )


def _part_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _memory_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part.json")


def _remembered(memory: Path, url: str) -> _Validator:
    found = _read_memory(memory)
    return found if found is not None and found.url == url else _Validator(url)


def _read_memory(memory: Path) -> _Validator | None:
    try:
        return _Validator(**json.loads(memory.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _remember(memory: Path, validator: _Validator) -> None:
    write_atomically(memory, json.dumps(asdict(validator)).encode())


def _validator_of(response: http.client.HTTPResponse, url: str) -> _Validator:
    etag, modified = (response.headers.get(name, "") for name in ("ETag", "Last-Modified"))
    return _Validator(url, etag, modified)


def _reason(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return _reason(error.reason) if isinstance(error.reason, BaseException) else error.reason
    return str(error).rstrip(".") or type(error).__name__
