"""`koser doctor`: whether what lies on the disk, and what is installed, can be relied on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from koser.errors import ConfigError

if TYPE_CHECKING:
    from koser.doctor.findings import Diagnosis

_KINDS = (
    "a store, a folder of stores, a run folder, a folder of koser regress or of shards, a .pth, a "
    "manifest, a split or transcripts"
)


def examine(path: Path | None, *, repair: bool = False) -> Diagnosis:
    """Examine what lies at `path`, or the installation.

    Parameters
    ----------
    path : Path or None
        A store or a folder of them, a run folder, a folder of `koser regress` or of shards, a
        checkpoint, a manifest, a split, a transcript cache; None for the installation.
    repair : bool
        Drop from stores and caches what is damaged, to be made anew.

    Raises
    ------
    ConfigError
        If there is nothing of the kind at `path`, or it cannot be repaired.
    """
    # Each kind needs other packages, and none but its own should have to be there.
    if path is None:
        from koser.doctor.installation import examine_installation

        _refuse_repair(repair, "An installation")
        return examine_installation()
    if not path.exists():
        raise ConfigError(f"Nothing at '{path}'. Give {_KINDS}, or no path for the installation.")
    if path.suffix == ".parquet":
        _refuse_repair(repair, f"'{path}'")
        return _examine_table(path)
    if path.suffix == ".pth":
        from koser.doctor.runs import examine_checkpoint

        _refuse_repair(repair, f"'{path}'")
        return examine_checkpoint(path)
    if path.suffix == ".sqlite" or _holds_stores(path):
        from koser.doctor.stores import examine_stores

        return examine_stores(path, repair=repair)
    found = _examine_results(path)
    if found is not None:
        _refuse_repair(repair, f"'{path}'")
        return found
    raise ConfigError(f"'{path}' is none of these: {_KINDS}.")


def _holds_stores(path: Path) -> bool:
    from koser.features.store_check import stores_below
    from koser.features.text.cache import CACHE_NAME

    return path.is_dir() and bool(stores_below(path) or (path / CACHE_NAME).exists())


def _examine_results(path: Path) -> Diagnosis | None:
    """What is to be said of a folder that a command has left; None if it is none."""
    if (path / "done.jsonl").exists():
        from koser.doctor.shards import examine_shards

        return examine_shards(path)
    if (path / "experiment.json").exists():
        from koser.doctor.dimensions import examine_dimensions

        return examine_dimensions(path)
    if (path / "run.json").exists() or (path / "parts").is_dir():
        from koser.doctor.runs import examine_run

        return examine_run(path)
    return None


def _examine_table(path: Path) -> Diagnosis:
    import polars as pl

    from koser.doctor.manifests import examine_manifest, examine_split

    try:
        is_split = "koser.split" in pl.read_parquet_metadata(path)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
        is_split = False  # which is then told as of a manifest
    return examine_split(path) if is_split else examine_manifest(path)


def _refuse_repair(repair: bool, what: str) -> None:
    if repair:
        raise ConfigError(
            f"{what} cannot be repaired, only made anew. --repair is for stores and transcripts."
        )
