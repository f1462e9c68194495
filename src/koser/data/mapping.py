"""Labels of one corpus as labels of another task: said label by label, and accounted for.

A mapping is a TOML file. Every label that a manifest has must be in it, so that none is ever
mapped or dropped unseen::

    about = "Four labels; calm becomes neutral"
    keep = ["angry", "happiness", "neutral", "sadness"]

    [map]
    calm = "neutral"

    [drop]
    fear = "not in the other corpus"       # the reason that is reported for its rows
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import polars as pl

from koser.data.manifest import SCHEMA, LeftOut, Manifest
from koser.errors import ConfigError, LabelError
from koser.labels import canonical_label, ordered_labels

_KEYS = {"about", "keep", "map", "drop"}


@dataclass(frozen=True)
class LabelMapping:
    """What becomes of each label.

    Attributes
    ----------
    name : str
        Of a shipped mapping, or the file's stem.
    about : str
        One sentence on what it is for.
    targets : Mapping[str, str]
        Label of a corpus -> label of the task.
    drops : Mapping[str, str]
        Label of a corpus -> why its utterances are left out.
    """

    name: str
    about: str
    targets: Mapping[str, str] = field(default_factory=dict)
    drops: Mapping[str, str] = field(default_factory=dict)


def shipped_mappings() -> dict[str, str]:
    """Names of the mappings that come with koser, and what each is for."""
    folder = resources.files("koser.data") / "mappings"
    names = sorted(
        each.name.removesuffix(".toml") for each in folder.iterdir() if each.name.endswith(".toml")
    )
    return {name: read_mapping(name).about for name in names}


def read_mapping(source: str) -> LabelMapping:
    """A shipped mapping by its name, or one in a TOML file.

    Raises
    ------
    ConfigError
        If there is none, or it says two things of one label.
    """
    if source.endswith(".toml"):
        path = Path(source)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"Cannot read the mapping '{path}': {error}.") from error
        return _parse(path.stem, text, source)
    file = resources.files("koser.data") / "mappings" / f"{source}.toml"
    if not file.is_file():
        raise ConfigError(
            f"No mapping is called '{source}'. Shipped: {', '.join(shipped_mappings())}. "
            f"Or give a file that ends in .toml."
        )
    return _parse(source, file.read_text("utf-8"), source)


def map_labels(manifest: Manifest, mapping: LabelMapping) -> Manifest:
    """A manifest with the labels of a mapping; what is dropped is reported, row by row.

    Labels, raters' votes, distributions and scripted emotions are mapped. A vote for a dropped
    label stays as it is, as one for none of the labels; a distribution is of the labels that are
    left. Labels are mapped as they are, not decided anew from the votes.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    mapping : LabelMapping
        What becomes of each of its labels.

    Returns
    -------
    Manifest
        Rows out + rows reported = rows in.

    Raises
    ------
    LabelError
        If the mapping does not say what becomes of a label, or nothing is left.
    """
    counts = Counter(manifest.table["label"].to_list())
    unknown = [
        label
        for label in manifest.labels
        if label not in mapping.targets and label not in mapping.drops
    ]
    if unknown:
        listed = ", ".join(f"'{label}' ({counts[label]} rows)" for label in unknown)
        raise LabelError(
            f"The mapping '{mapping.name}' does not say what becomes of {listed}. Add each to "
            f"keep, [map] or [drop] of a mapping of your own: --mapping FILE.toml."
        )
    is_kept = manifest.table["label"].is_in(list(mapping.targets))
    if not is_kept.any():
        raise LabelError(
            f"The mapping '{mapping.name}' drops every label of the manifest: "
            f"{', '.join(manifest.labels)}."
        )
    labels = ordered_labels(
        mapping.targets[label] for label in manifest.labels if label in mapping.targets
    )
    left_out = tuple(
        LeftOut(name, f"label '{label}' dropped by the mapping '{mapping.name}'", why)
        for name, label in manifest.table.filter(~is_kept).select("id", "label").iter_rows()
        for why in (mapping.drops[label],)
    )
    provenance = manifest.provenance
    return Manifest(
        _mapped(manifest.table.filter(is_kept), manifest.labels, labels, mapping),
        replace(
            provenance,
            labels=labels,
            label_policy=f"{provenance.label_policy}, mapped by '{mapping.name}'",
            left_out=(*provenance.left_out, *left_out),
            notes=(*provenance.notes, *_notes(manifest.labels, counts, mapping)),
        ),
    ).validate()


def remap_distributions(
    distributions: pl.Series,
    before: tuple[str, ...],
    after: tuple[str, ...],
    targets: Mapping[str, str],
) -> pl.Series:
    """Shares over `before` as shares over `after`; null where nothing of one is left.

    Parameters
    ----------
    distributions : pl.Series
        The column ``distribution`` of a manifest.
    before, after : tuple[str, ...]
        Labels of its columns, and of the result's.
    targets : Mapping[str, str]
        Label before -> label after, for those that are kept.
    """
    places = [
        (source, after.index(targets[label]))
        for source, label in enumerate(before)
        if label in targets
    ]
    mapped: list[list[float] | None] = []
    for shares in distributions.to_list():
        summed = [0.0] * len(after)
        for source, place in places if shares is not None else ():
            summed[place] += shares[source]
        total = sum(summed)
        mapped.append([share / total for share in summed] if total > 0 else None)
    return pl.Series(distributions.name, mapped, SCHEMA["distribution"])


def _mapped(
    table: pl.DataFrame,
    before: tuple[str, ...],
    after: tuple[str, ...],
    mapping: LabelMapping,
) -> pl.DataFrame:
    targets = dict(mapping.targets)
    of_vote = pl.element().struct.with_fields(pl.field("label").replace(targets))
    return table.with_columns(
        pl.col("label").replace(targets),
        pl.col("situation").replace(targets),
        pl.col("votes").list.eval(of_vote),
        remap_distributions(table["distribution"], before, after, targets),
    )


def _notes(labels: tuple[str, ...], counts: Counter[str], mapping: LabelMapping) -> list[str]:
    """What was done, in one sentence; labels that stay as they are go without saying."""
    changes = [
        f"{label} → {mapping.targets[label]} ({counts[label]} rows)"
        for label in labels
        if mapping.targets.get(label, label) != label
    ]
    changes += [
        f"{label} left out ({counts[label]} rows: {mapping.drops[label]})"
        for label in labels
        if label in mapping.drops
    ]
    done = "; ".join(changes) or "every label stays as it is"
    return [f"Labels mapped by '{mapping.name}': {done}."]


def _parse(name: str, text: str, source: str) -> LabelMapping:
    try:
        values: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"'{source}' is not a TOML file: {error}.") from error
    unknown = sorted(values.keys() - _KEYS)
    if unknown:
        raise ConfigError(
            f"'{source}' has {', '.join(unknown)}. A mapping has {', '.join(sorted(_KEYS))}."
        )
    keep, mapped, drops = values.get("keep", []), values.get("map", {}), values.get("drop", {})
    is_sound = (
        isinstance(keep, list)
        and all(isinstance(each, dict) for each in (mapped, drops))
        and all(isinstance(each, str) for each in (*keep, *mapped.values(), *drops.values()))
    )
    if not is_sound:
        raise ConfigError(
            f"'{source}' is no mapping: keep is a list of labels, [map] holds LABEL = \"LABEL\", "
            f'[drop] LABEL = "why".'
        )
    entries = [
        *((canonical_label(label), canonical_label(label)) for label in keep),
        *((canonical_label(label), canonical_label(to)) for label, to in mapped.items()),
    ]
    reasons = [(canonical_label(label), why.strip()) for label, why in drops.items()]
    twice = [label for label, n in Counter(k for k, _ in (*entries, *reasons)).items() if n > 1]
    if twice:
        raise ConfigError(f"'{source}' says two things of {', '.join(sorted(twice))}. Say one.")
    blank = [label for label, why in reasons if not why]
    if blank:
        raise ConfigError(f"'{source}' drops {', '.join(blank)} without a reason. Give one.")
    return LabelMapping(name, str(values.get("about", "")), dict(entries), dict(reasons))
