"""A run as its folder tells it: what reports and comparisons read."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any

import polars as pl

from koser.data.sealing import UNREADABLE
from koser.errors import RunError
from koser.hashes import SUMS, is_as_written

# What `predictions.parquet` must have to be compared, beside one probability per label.
_COLUMNS = ("seed", "fold", "id", "cluster", "label", "predicted")


@dataclass(frozen=True, eq=False)
class RunFolder:
    """What a run left for programs.

    Attributes
    ----------
    folder : Path
        Where it is.
    description : Mapping
        The content of ``run.json``.
    metrics : Mapping
        The content of ``metrics.json``.
    """

    folder: Path
    description: Mapping[str, Any] = field(repr=False)
    metrics: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, folder: Path) -> RunFolder:
        """Read a folder in which every training is done.

        Raises
        ------
        RunError
            If it is none, unfinished, or a file cannot be read.
        """
        if not (folder / "run.json").is_file():
            raise RunError(
                f"'{folder}' is no run folder of koser: it has no run.json. "
                f"Give a folder that `koser train` or `koser evaluate` left."
            )
        if not (folder / "metrics.json").is_file():
            raise RunError(
                f"The run in '{folder}' is not finished: it has no metrics.json. "
                f"Go on with it: the command in its run.json, with --resume"
            )
        return cls(folder, read_json(folder / "run.json"), read_json(folder / "metrics.json"))

    @cached_property
    def predictions(self) -> pl.DataFrame:
        """The content of ``predictions.parquet``.

        Raises
        ------
        RunError
            If it cannot be read or is of an earlier version.
        """
        path = self.folder / "predictions.parquet"
        check_sum(path)
        try:
            table = pl.read_parquet(path, hive_partitioning=False, glob=False)
        except UNREADABLE as error:
            raise RunError(f"Cannot read the predictions '{path}': {error}.") from error
        missing = [column for column in _COLUMNS if column not in table.columns]
        if missing:
            raise RunError(
                f"'{path}' has no column {', '.join(missing)}: another version of koser wrote it. "
                f"Train again."
            )
        return table

    @property
    def name(self) -> str:
        """``<model>_<split>``."""
        return str(self.description["name"])

    @property
    def model(self) -> str:
        """Name of the system."""
        return str(self.description["experiment"]["model"])

    @property
    def labels(self) -> tuple[str, ...]:
        """All classes of the task."""
        return tuple(self.metrics["labels"])

    @property
    def split_hash(self) -> str:
        """What names its split."""
        return str(self.metrics["protocol"]["hash"])

    @property
    def title(self) -> str:
        """The system and the pretrained models in it, for a table."""
        return self.title_without(())

    def title_without(self, kinds: Collection[str]) -> str:
        """The `title`, but for pretrained models of these kinds."""
        parts = [Path(name).name for kind, name in self.pretrained.items() if kind not in kinds]
        return f"{self.model} ({', '.join(parts)})" if parts else self.model

    @property
    def pretrained(self) -> dict[str, str]:
        """Hub id or folder of every pretrained model, by what it is for."""
        config = self.description["experiment"]["config"]
        sections = {key: value for key, value in config.items() if isinstance(value, Mapping)}
        return {
            key: str(section["name"])
            for key, section in sections.items()
            if section.get("name") and key in _PRETRAINED
        }

    def optional_json(self, name: str) -> dict[str, Any] | None:
        """A file that not every run has; None where this one has not.

        Raises
        ------
        RunError
            If it is there and cannot be read.
        """
        path = self.folder / name
        return read_json(path) if path.is_file() else None


# Sections of a system's configuration that name a pretrained model.
_PRETRAINED = ("encoder", "whisper", "text")


def check_sum(path: Path) -> None:
    """Refuse a file of a run that holds other bytes than when the run was finished.

    Raises
    ------
    RunError
        If it does, or cannot be read.
    """
    try:
        is_damaged = is_as_written(path) is False
    except OSError as error:
        raise RunError(f"Cannot read '{path}': {error}.") from error
    if is_damaged:
        raise RunError(
            f"'{path}' is damaged, or was changed after the run: its SHA-256 is not the one in "
            f"{SUMS}. Copy it again, or see what can be saved: koser doctor "
            f"{quote(str(path.parent))}"
        )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that koser wrote, as it was when its run was finished.

    Raises
    ------
    RunError
        If it cannot be read, or was changed since.
    """
    check_sum(path)
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"Cannot read '{path}': {error}.") from error
    return values
