"""SHA256SUMS: what the files of a folder held when they were finished.

The format is that of ``sha256sum``, so ``sha256sum --check SHA256SUMS`` reads it too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from koser.files import write_atomically

SUMS = "SHA256SUMS"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sums(folder: Path, names: Iterable[str]) -> None:
    """Write `SUMS` over the files of `folder` that `names` name."""
    lines = [f"{sha256_of(folder / name)}  {name}\n" for name in sorted(names)]
    write_atomically(folder / SUMS, "".join(lines).encode())


def read_sums(folder: Path) -> Mapping[str, str]:
    """What `write_sums` wrote, by name; nothing where it never did.

    Lines that are none of ``sha256sum`` are passed over: what they stood for is unknown.
    """
    path = folder / SUMS
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    pairs = (line.partition("  ") for line in lines)
    return {name: digest for digest, _, name in pairs if name and len(digest) == 64}


def is_as_written(path: Path) -> bool | None:
    """Whether a file still holds what it held when its folder was finished; None if unknown."""
    expected = read_sums(path.parent).get(path.name)
    return None if expected is None else sha256_of(path) == expected
