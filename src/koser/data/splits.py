"""Splits: who trains, validates and tests, under which protocol, provably and repeatably."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import polars as pl

from koser.config import build_config
from koser.data.assignment import LEFT_OUT, PARTS, TEST, TRAIN, VAL, IntArray, codes
from koser.data.leakage import Leak, find_leaks
from koser.data.manifest import Manifest
from koser.data.protocols import (
    FOLD_OPTIONS,
    PROTOCOLS,
    Plan,
    Protocol,
    SplitOptions,
    Utterances,
    plan_fixed,
)
from koser.data.sealing import UNREADABLE, is_intact, write_sealed
from koser.errors import ConfigError, SplitError, StorageError
from koser.storage.objects import local_file
from koser.storage.places import Place, is_url
from koser.storage.writing import make_folder_of

__all__ = ["PARTS", "Leak", "Split", "SplitOptions", "make_split", "resolve_split"]

SCHEMA = {"id": pl.String(), "fold": pl.Int32(), "part": pl.String()}

_FIXED = "fixed:"
_METADATA_KEY = "koser.split"


@dataclass(frozen=True)
class Split:
    """Every utterance's part in every fold.

    Attributes
    ----------
    table : pl.DataFrame
        Columns ``id``, ``fold`` (from 0) and ``part``; every utterance once per fold.
    protocol : str
        Such as ``"speaker"`` or ``"fixed:ravdess"``.
    grouping : str
        What the parts really keep apart: ``"utterance"``, ``"speaker"``,
        ``"group(age×gender)+script"`` …
    options : SplitOptions
        How the protocol was carried out.
    notes : tuple[str, ...]
        What a reader should know, one sentence each.
    """

    table: pl.DataFrame = field(repr=False)
    protocol: str
    grouping: str
    options: SplitOptions
    notes: tuple[str, ...] = ()

    @property
    def seed(self) -> int:
        """What decided wherever the protocol leaves a choice."""
        return self.options.seed

    @cached_property
    def n_folds(self) -> int:
        """Number of folds."""
        return self.table["fold"].n_unique()

    @cached_property
    def hash(self) -> str:
        """32 hexadecimal digits that name the protocol and every utterance's part in every fold.

        Neither the order of the rows nor what the seed or the options were called counts.
        """
        digest = hashlib.blake2b(json.dumps(self.protocol).encode(), digest_size=16)
        parts = self.table.sort("fold", "part", "id").group_by("fold", "part", maintain_order=True)
        for (fold, part), rows in parts:
            digest.update(json.dumps([fold, part, rows["id"].to_list()]).encode())
        return digest.hexdigest()

    def ids(self, fold: int, part: str) -> list[str]:
        """Sorted ids of the utterances of one part.

        Raises
        ------
        SplitError
            If there is no such fold or part.
        """
        if part not in PARTS:
            raise SplitError(f"No part '{part}'. Parts are {', '.join(PARTS)}.")
        if not 0 <= fold < self.n_folds:
            raise SplitError(f"No fold {fold}: the split has {self.n_folds}, counted from 0.")
        rows = self.table.filter((pl.col("fold") == fold) & (pl.col("part") == part))
        ids: list[str] = rows["id"].sort().to_list()
        return ids

    def counts(self) -> pl.DataFrame:
        """Utterances per part: one row per ``fold``, a column for each of `PARTS`."""
        count = [(pl.col("part") == part).sum().cast(pl.Int64).alias(part) for part in PARTS]
        return self.table.group_by("fold").agg(count).sort("fold")

    def describe(self) -> dict[str, Any]:
        """What a score must be printed with, as plain JSON values."""
        return {
            "protocol": self.protocol,
            "grouping": self.grouping,
            "n_folds": self.n_folds,
            "seed": self.seed,
            "hash": self.hash,
            "options": self.options.model_dump(mode="json"),
            "notes": list(self.notes),
        }

    def check(self, manifest: Manifest) -> Split:
        """Return the split itself if it is one of exactly the utterances of `manifest`.

        Raises
        ------
        SplitError
            If an utterance is missing, unknown or in two parts of a fold.
        """
        of_split, of_manifest = self.table["id"].unique(), manifest.table["id"]
        for names, what in (
            (of_split.filter(~of_split.is_in(of_manifest.implode())), "are not in the manifest"),
            (of_manifest.filter(~of_manifest.is_in(of_split.implode())), "are not in the split"),
            (
                self.table.filter(self.table.select("fold", "id").is_duplicated())["id"].unique(),
                "are more than once in a fold",
            ),
        ):
            if len(names):
                raise SplitError(
                    f"The split '{self.protocol}' ({self.hash}) does not belong to the manifest: "
                    f"{len(names)} utterances {what}, the first: "
                    f"{', '.join(names.sort().head(5))}. Make the split again."
                )
        if self.table.height != self.n_folds * len(manifest):
            raise SplitError(
                f"The split has {self.table.height} rows, not {self.n_folds} folds × "
                f"{len(manifest)} utterances. Make the split again."
            )
        return self

    def leakage(self, manifest: Manifest) -> tuple[Leak, ...]:
        """What test shares with train and val, worst over the folds; left-out rows do not count.

        Raises
        ------
        SplitError
            If the split is not one of `manifest`.
        """
        return find_leaks(manifest, self.parts(manifest))

    def summary_rows(self, manifest: Manifest) -> Iterator[tuple[str, str, str]]:
        """Section, name and value of everything worth printing.

        Raises
        ------
        SplitError
            If the split is not one of `manifest`.
        """
        matrix = self.parts(manifest)
        yield "split", "protocol", self.protocol
        yield "split", "kept apart", self.grouping
        yield "split", "seed", str(self.seed)
        yield "split", "utterances", f"{len(manifest):,}"
        label_ids = [manifest.labels.index(label) for label in manifest.table["label"]]
        label_id = np.array(label_ids, dtype=np.int64)
        column = manifest.grouping_column
        groups = None if column is None else codes(manifest.table[column])
        for fold, parts in enumerate(matrix):
            section = "parts" if self.n_folds == 1 else f"fold {fold}"
            for code, name in enumerate(PARTS):
                of_part = parts == code
                if not of_part.any():
                    continue
                counts = np.bincount(label_id[of_part], minlength=len(manifest.labels))
                per_label = dict(zip(manifest.labels, counts.tolist(), strict=True))
                of = "" if groups is None else f" of {len(np.unique(groups[of_part]))} {column}s"
                value = f"{of_part.sum():,}{of}: " + ", ".join(
                    f"{label} {count:,}" for label, count in per_label.items() if count
                )
                absent = [label for label, count in per_label.items() if not count]
                if absent and code != LEFT_OUT:
                    value += f"; absent: {', '.join(absent)}"
                yield section, name, value
        for leak in find_leaks(manifest, matrix):
            yield "test shares with train and val", f"{leak.kind}s", leak.describe()

    def write(self, path: Place) -> None:
        """Write to one Parquet file; a reader sees the old file or the whole new one.

        Raises
        ------
        SplitError
            If the folder cannot be made or written to.
        StorageError
            If the object cannot be.
        """
        metadata = {_METADATA_KEY: json.dumps(self.describe(), ensure_ascii=False)}
        try:
            make_folder_of(path)
            write_sealed(self.table, path, metadata)
        except StorageError:
            raise
        except OSError as error:
            raise SplitError(f"Cannot write the split '{path}': {error}.") from error

    @classmethod
    def read(cls, path: Place) -> Split:
        """Read a split that `write` made.

        Raises
        ------
        SplitError
            If the file is missing, no split of koser, or was changed since.
        StorageError
            If the object cannot be had.
        """
        if not is_url(path) and not Path(path).is_file():
            raise SplitError(
                f"No split at '{path}'. Make one: koser split M.parquet --by speaker "
                f"--out {quote(str(path))}"
            )
        try:
            with local_file(path) as file:
                with file.open("rb") as opened:
                    is_damaged = is_intact(opened) is False
                if is_damaged:
                    raise SplitError(
                        f"'{path}' is damaged, or was changed after it was written: its checksum "
                        f"is wrong. Copy it again, or make the split again."
                    )
                metadata = pl.read_parquet_metadata(file)
                table = pl.read_parquet(file, hive_partitioning=False, glob=False)
        except StorageError:
            raise
        except PermissionError as error:
            raise SplitError(f"No permission to read the split '{path}'. Ask its owner.") from error
        except UNREADABLE as error:
            raise SplitError(f"'{path}' is not a Parquet file, or is damaged: {error}.") from error
        if _METADATA_KEY not in metadata or dict(table.schema) != SCHEMA:
            raise SplitError(
                f"'{path}' is a Parquet file, but not a split of koser. Bring your own list in "
                f"with: koser split M.parquet --by fixed:{path} --out S.parquet"
            )
        try:
            known = json.loads(metadata[_METADATA_KEY])
            options = build_config(SplitOptions, known["options"])
            notes = tuple(known["notes"])
            split = cls(table, known["protocol"], known["grouping"], options, notes)
            written_hash = known["hash"]
        except (json.JSONDecodeError, KeyError, TypeError, ConfigError) as error:
            raise SplitError(
                f"The description in '{path}' is not readable ({error!r}). "
                f"Make the split again with this version of koser."
            ) from error
        if split.hash != written_hash:
            raise SplitError(
                f"'{path}' was changed after it was written: its rows have the hash {split.hash}, "
                f"not {written_hash}. Make the split again."
            )
        return split

    def parts(self, manifest: Manifest) -> IntArray:
        """Part of every row of `manifest` in every fold, as its place in `PARTS`.

        Returns
        -------
        np.ndarray [shape=(n_folds, n_utterances)]

        Raises
        ------
        SplitError
            If the split is not one of `manifest`.
        """
        self.check(manifest)
        rows = manifest.table.select("id").with_row_index("row")
        names = pl.DataFrame({"part": PARTS, "code": range(len(PARTS))})
        table = self.table.join(rows, on="id").join(names, on="part")
        matrix = np.empty((self.n_folds, len(manifest)), dtype=np.int64)
        matrix[table["fold"].to_numpy(), table["row"].to_numpy()] = table["code"].to_numpy()
        return matrix


def make_split(manifest: Manifest, protocol: str, options: SplitOptions | None = None) -> Split:
    """Divide the utterances of `manifest` under a protocol.

    The result depends on the manifest's ids, labels, groups and texts, the protocol and
    the options, and on nothing else: not on the order of the rows, not on the machine.

    Parameters
    ----------
    manifest : Manifest
        What to divide.
    protocol : str
        One of

        ``random``
            stratified by label; speakers and scripts are shared.
        ``speaker``
            no speaker (or group) is shared: the sorted groups are shuffled, then taken
            until test and after it val hold their fraction of the utterances.
        ``speaker+script``
            no script is shared either; what cannot be kept is left out. With `n_folds`,
            every combination of a fold of groups and a fold of scripts is tested.
        ``session``
            as ``speaker``, with sessions. With `n_folds`, folds of whole sessions, stratified
            by label.
        ``leave_one_speaker_out``
            one fold per speaker (or group).
        ``kfold``
            folds of whole groups, stratified by label; of utterances, if no group is known.
        ``fixed:LIST``
            a published list, shipped (``fixed:ravdess``) or a file: see `koser.data.fold_lists`.
    options : SplitOptions, optional
        Seed, fractions and numbers of folds.

    Returns
    -------
    Split
        Without a part that is empty although it was asked for.

    Raises
    ------
    SplitError
        If the protocol is unknown, the manifest lacks what it needs, an option has no
        meaning in it, or a part would be empty.
    """
    options = options or SplitOptions()
    rule, name = _rule(protocol)
    for option in ("n_folds", "n_script_folds"):
        if getattr(options, option) is not None and option not in FOLD_OPTIONS.get(name, ()):
            takers = [other for other, known in FOLD_OPTIONS.items() if option in known]
            raise SplitError(
                f"Protocol '{name}' takes no {option} ({getattr(options, option)} given). "
                f"Protocols that do: {', '.join(takers)}."
            )
    data = Utterances.of(manifest)
    plan = rule(data, options)
    _refuse_empty_parts(plan, name, options)
    n_folds, n_utterances = plan.parts.shape
    table = pl.DataFrame(
        {
            "id": pl.concat([data.table["id"]] * n_folds),
            "fold": np.repeat(np.arange(n_folds), n_utterances),
            "part": pl.Series(PARTS).gather(plan.parts.ravel()),
        },
        schema=SCHEMA,
    )
    return Split(table, name, plan.grouping, options, plan.notes)


def resolve_split(manifest: Manifest, split: str, options: SplitOptions) -> Split:
    """The split that `split` names: a file that was kept, or a protocol to apply."""
    if is_kept(split):
        return Split.read(split).check(manifest)
    return make_split(manifest, split, options)


def is_kept(split: str) -> bool:
    """Whether `split` names a file that was kept, and not a protocol."""
    return split.endswith(".parquet") and not split.startswith(_FIXED)


def _rule(protocol: str) -> tuple[Protocol, str]:
    """The function of a protocol, and the protocol's name without a path."""
    if protocol.startswith(_FIXED) and protocol != _FIXED:
        source = protocol.removeprefix(_FIXED)
        return partial(plan_fixed, name=source), f"{_FIXED}{Path(source).stem}"
    if protocol not in PROTOCOLS:
        raise SplitError(
            f"Unknown protocol '{protocol}'. Protocols are {', '.join(PROTOCOLS)} and {_FIXED}LIST."
        )
    return PROTOCOLS[protocol], protocol


def _refuse_empty_parts(plan: Plan, protocol: str, options: SplitOptions) -> None:
    wanted = [TRAIN, TEST] + [VAL] * (options.val_fraction > 0)
    for fold, parts in enumerate(plan.parts):
        counts = np.bincount(parts, minlength=len(PARTS))
        empty = [PARTS[part] for part in wanted if not counts[part]]
        if empty:
            sizes = ", ".join(f"{name} {count}" for name, count in zip(PARTS, counts, strict=True))
            raise SplitError(
                f"Protocol '{protocol}' leaves {' and '.join(empty)} empty in fold {fold} "
                f"({sizes} utterances, kept apart by {plan.grouping}): there are too few groups "
                f"or scripts to go round. Ask for other fractions (val-fraction 0 trains without "
                f"validation), fewer folds, or another protocol."
            )
