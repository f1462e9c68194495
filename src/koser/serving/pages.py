"""The files of the web page: a fixed set, read once; no path of a request is ever opened."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources

_MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@dataclass(frozen=True)
class PageFile:
    """One file of the page.

    Attributes
    ----------
    content : bytes
        All of it.
    media_type : str
        Of the response.
    etag : str
        Changes with the content.
    """

    content: bytes
    media_type: str
    etag: str


def read_page() -> dict[str, PageFile]:
    """Every file of the page, by its name."""
    files = {}
    for path in (resources.files("koser.serving") / "page").iterdir():
        kind = path.name.rpartition(".")[2]
        if kind in _MEDIA_TYPES:
            content = path.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            files[path.name] = PageFile(content, _MEDIA_TYPES[kind], etag)
    return files
