"""What ``koser predict`` does with a model of valence and arousal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from koser.cli.writing import check_format, exit_on_failures, means_folder, write_results
from koser.errors import ConfigError
from koser.storage.places import is_url, name_of

# As in koser.cli: nothing that loads polars or torch is imported before a handler runs.


def refuse_label_options(model: Path, options: Mapping[str, object]) -> None:
    """Refuse options that only models of labels have.

    Parameters
    ----------
    model : Path
        The model of values.
    options : Mapping[str, object]
        Their values by name; None, False or an empty list where one was not given.

    Raises
    ------
    ConfigError
        If any was given.
    """
    # By identity: 0 equals False, and a 0 was given.
    given = [
        name
        for name, value in options.items()
        if value is not None and value is not False and value != []
    ]
    if given:
        raise ConfigError(
            f"{', '.join(given)}: for models of labels, and '{model}' is one of valence and "
            f"arousal. Leave {'it' if len(given) == 1 else 'them'} out."
        )


def predict_values(
    model: Path,
    paths: Sequence[str],
    manifest: str | None,
    *,
    encoder: str | None,
    format: str,
    out: str | None,
) -> None:
    """Give valence and arousal of files, or of a manifest's; see ``koser predict``."""
    from koser.inference.output import find_clips
    from koser.inference.values import load_regressor

    check_format(format, out)
    _check_file(model, out, is_of_manifest=manifest is not None)
    clips = find_clips(paths, manifest)
    regressor = load_regressor(model, encoder=encoder)
    exit_on_failures(write_results(regressor.iter_clips(clips), None, format, out), len(clips))


def _check_file(model: Path, out: str | None, *, is_of_manifest: bool) -> None:
    """Refuse a folder as `out`; of a manifest's results, a name without a suffix means one."""
    if out is None:
        return
    if is_url(out):
        is_folder = not name_of(out).suffix
    else:
        is_folder = Path(out).is_dir() or (is_of_manifest and means_folder(Path(out)))
    if is_folder:
        raise ConfigError(
            f"--out {out}: shards in a folder are for models of labels, and '{model}' is one of "
            f"valence and arousal. Give a file that ends in .csv, .json or .parquet."
        )
