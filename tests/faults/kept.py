"""What commands leave behind, in a form in which two runs of them are equal or not.

Times, memory and the machine are left out; everything else counts, to the last digit. The
files are read with other means than koser's own wherever there are some.
"""

from __future__ import annotations

import json
import re
import sqlite3
import struct
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import torch

Content = dict[str, Any]

_TOLD = 80  # of an entry that differs, characters
# Of metrics.json and history.json: what depends on the machine's mood.
_OF_THE_MOMENT = re.compile(r"seconds|cost|memory|real_time|command|environment")


def manifest_content(path: Path) -> Content:
    """Rows and provenance."""
    return {**table_content(path), "provenance": _metadata(path)}


def table_content(path: Path) -> Content:
    """Rows of a Parquet file, in order."""
    return {path.name: pl.read_parquet(path, hive_partitioning=False).rows()}


def store_content(root: Path) -> Content:
    """Arrays of every front-end by key: shape, bytes; and how often a key is written.

    Reads the documented layout with `struct`, not through `FeatureStore`.
    """
    content: Content = {}
    for index in sorted(root.glob("*/index.bin")):
        data = (index.parent / "data.bin").read_bytes()
        arrays: dict[str, tuple[tuple[int, ...], bytes]] = {}
        keys: Counter[str] = Counter()
        raw = index.read_bytes()
        width = 2 if "float16" in (index.parent / "extractor.json").read_text("utf-8") else 4
        for record in struct.iter_unpack("<16sQIIIII", raw[: len(raw) // 44 * 44]):
            key, offset, *shape, data_crc, _ = record
            dimensions = tuple(n for n in shape if n)
            size = width
            for n in dimensions:
                size *= n
            values = data[offset : offset + size]
            if zlib.crc32(values) != data_crc:
                raise ValueError(f"{index}: record {key.hex()} does not match its data")
            arrays[key.hex()] = (dimensions, values)
            keys[key.hex()] += 1
        content[index.parent.name] = {
            "arrays": arrays,
            "twice": sorted(key for key, n in keys.items() if n > 1),
            "half a record": len(raw) % 44,
        }
    return content


def transcript_content(root: Path) -> Content:
    """Rows of the transcript cache."""
    connection = sqlite3.connect(root / "transcripts.sqlite")
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return {
            "transcripts": connection.execute(
                "SELECT hex(clip), transcriber, status, text, avg_logprob, no_speech_prob, context "
                "FROM transcript ORDER BY clip, transcriber"
            ).fetchall(),
            "failures": connection.execute("SELECT source, error FROM failure").fetchall(),
        }
    finally:
        connection.close()


def run_content(folder: Path) -> Content:
    """What a run folder holds: predictions, scores, split, weights, and which files."""
    content: Content = {
        "files": sorted(
            str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
        ),
        **table_content(folder / "predictions.parquet"),
        **table_content(folder / "split.parquet"),
        "settings": (folder / "config.toml").read_text(encoding="utf-8"),
        **html_content(folder / "report.html"),
    }
    for path in (*folder.glob("*.json"), *folder.glob("ablations/*.json")):
        content[path.name] = timeless(json.loads(path.read_text(encoding="utf-8")))
    for path in sorted(folder.rglob("*.pth")):
        content[str(path.relative_to(folder))] = checkpoint_content(path)
    return content


def folder_content(folder: Path) -> Content:
    """What any folder holds: rows of tables, values of JSON and checkpoints, and which files."""
    content: Content = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        if path.suffix == ".parquet":
            content[name] = table_content(path)[path.name]
        elif path.suffix == ".json":
            content[name] = timeless(json.loads(path.read_text(encoding="utf-8")))
        elif path.suffix == ".pth":
            content[name] = checkpoint_content(path)
        else:
            content[name] = "there"
    return content


def checkpoint_content(path: Path) -> Content:
    """Every tensor and value of a checkpoint, by its bytes where it is a tensor."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    return timeless(_plain(torch.load(path, map_location="cpu", weights_only=True)))


def html_content(path: Path) -> Content:
    """Whether a page is whole; what it says of times and memory differs between runs."""
    text = path.read_text(encoding="utf-8")
    return {path.name: (text.startswith("<!doctype html>"), text.rstrip().endswith("</html>"))}


def every_file(folder: Path, *names: str) -> Content:
    """Bytes of files."""
    return {name: (folder / name).read_bytes() for name in names}


def timeless(values: Any) -> Any:
    """`values` without what depends on when and where they were made."""
    if isinstance(values, dict):
        return {
            key: timeless(value)
            for key, value in values.items()
            if not _OF_THE_MOMENT.search(str(key))
        }
    if isinstance(values, list | tuple):
        return [timeless(value) for value in values]
    return values


def _plain(values: Any) -> Any:
    if isinstance(values, torch.Tensor):
        # Bits, because no NaN is equal to itself.
        return (tuple(values.shape), str(values.dtype), values.contiguous().numpy().tobytes())
    if isinstance(values, dict):
        return {str(key): _plain(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_plain(value) for value in values]
    return values


def _metadata(path: Path) -> dict[str, str]:
    metadata = pl.read_parquet_metadata(path)
    return {key: value for key, value in metadata.items() if key.startswith("koser")}


def differences(expected: Content, actual: Content) -> list[str]:
    """What differs, in words; empty if nothing does."""
    found = [f"{name} is missing" for name in expected.keys() - actual.keys()]
    found += [f"{name} is new" for name in actual.keys() - expected.keys()]
    for name in expected.keys() & actual.keys():
        if expected[name] != actual[name]:
            found.append(_describe(name, expected[name], actual[name]))
    return sorted(found)


def _describe(name: str, expected: Any, actual: Any) -> str:
    if isinstance(expected, dict) and isinstance(actual, dict):
        return f"{name}: " + "; ".join(differences(expected, actual))
    if isinstance(expected, list) and isinstance(actual, list):
        told = [f"{len(expected)} entries expected, {len(actual)} found"]
        wanted, present = (Counter(map(repr, entries)) for entries in (expected, actual))
        for what, entries in (("missing", wanted - present), ("new", present - wanted)):
            told += [f"{what}: {entry[:_TOLD]}" for entry in list(entries)[:1]]
        return f"{name}: " + ", ".join(told)
    return f"{name} differs"


def lost_and_duplicated(expected: Content, actual: Content) -> tuple[int, int]:
    """Rows and arrays that are gone, and that are there more often than they should be."""
    lost = duplicated = 0
    for name, before in expected.items():
        wanted, present = Counter(_rows(before)), Counter(_rows(actual.get(name)))
        lost += (wanted - present).total()
        duplicated += sum(n - wanted[row] for row, n in present.items() if n > wanted[row] > 0)
    return lost, duplicated


def _rows(value: Any) -> list[str]:
    if isinstance(value, list):
        return [repr(row) for row in value]
    if isinstance(value, dict) and "arrays" in value:
        return [*value["arrays"], *value["twice"]]
    return []
