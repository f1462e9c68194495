"""Whether any file that is there under its own name can be read to its end.

What a killed command leaves is looked at before the command runs again: a reader that comes
in between must find whole files or none.
"""

from __future__ import annotations

import csv
import json
import sqlite3
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
from PIL import Image


def half_written(folder: Path) -> list[str]:
    """Files below `folder` that are not whole, in words."""
    found = []
    for path in sorted(folder.rglob("*")):
        is_hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        check = _CHECKS.get(path.suffix)
        if path.is_dir() or is_hidden or "last-probe-" in str(path) or check is None:
            continue
        try:
            check(path)
        except Exception as error:  # whatever a reader stumbles over
            found.append(f"half written: {path.relative_to(folder)} ({error!r})")
    return found


def _read_html(path: Path) -> None:
    if not path.read_text(encoding="utf-8").rstrip().endswith("</html>"):
        raise ValueError("the page does not end")


def _read_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"damaged entry {damaged}")


def _read_image(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


def _read_graph(path: Path) -> None:
    import onnx

    onnx.checker.check_model(onnx.load(path))


def _read_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    try:
        found = connection.execute("PRAGMA integrity_check").fetchone()
    finally:
        connection.close()
    if found != ("ok",):
        raise ValueError(str(found))


def _read_csv(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    widths = {len(row) for row in csv.reader(text.splitlines())}
    if len(widths) != 1 or not text.endswith("\n"):
        raise ValueError(f"rows of {sorted(widths)} cells")


_CHECKS: dict[str, Callable[[Path], object]] = {
    ".parquet": lambda path: pl.read_parquet(path, hive_partitioning=False),
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".toml": lambda path: tomllib.loads(path.read_text(encoding="utf-8")),
    ".html": _read_html,
    ".pth": _read_archive,
    ".png": _read_image,
    ".onnx": _read_graph,
    ".sqlite": _read_database,
    ".csv": _read_csv,
}
