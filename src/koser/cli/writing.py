"""Results as commands give them out: printed or in a file, failures told and counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from koser.errors import ConfigError

if TYPE_CHECKING:
    from koser.inference.output import Labels, Result

# As in koser.cli: nothing that loads polars or torch is imported before a handler runs.


def check_format(format: str, out: str | None) -> None:
    """Refuse what `write_results` could not write, before the work.

    Raises
    ------
    ConfigError
        If it is a format of timelines, or Parquet without a file.
    """
    from koser.inference.output import FORMATS

    if format not in FORMATS:
        raise ConfigError(
            f"'{format}' is a format of timelines. Add --timeline, or give {', '.join(FORMATS)}."
        )
    if format == "parquet" and out is None:
        raise ConfigError("A Parquet file is not printed. Give --out FILE.parquet.")


def means_folder(out: Path) -> bool:
    """Whether a manifest's results that go to `out` would be shards in a folder."""
    if out.exists() and not out.is_file():
        return out.is_dir()  # or else a device or a pipe, which is written to like a file
    return not out.suffix


def write_results(results: Iterable[Result], labels: Labels, format: str, out: str | None) -> int:
    """Print results, or write them to `out`; see `koser.inference.output.iter_lines`.

    Returns
    -------
    int
        How many of them are failures; each is told.
    """
    from koser.inference.output import iter_lines, text_file, write_parquet

    counted = _Counted(results)
    if format == "parquet" and out is not None:
        write_parquet(counted, labels, out)
        return counted.n_failed
    lines = iter_lines(counted, format, labels)
    if out is None:
        for line in lines:
            typer.echo(line)
    else:
        with text_file(out) as file:
            file.writelines(f"{line}\n" for line in lines)
    return counted.n_failed


def exit_on_failures(n_failed: int, n_clips: int) -> None:
    """End the command with status 1 if anything failed, and say how much."""
    if n_failed:
        typer.echo(f"{n_failed} of {n_clips} could not be recognised.", err=True)
        raise typer.Exit(1)


class _Counted:
    """Results as they come, with failures told and counted."""

    def __init__(self, results: Iterable[Result]) -> None:
        self._results = results
        self.n_failed = 0

    def __iter__(self) -> Iterator[Result]:
        from koser.inference.prediction import Failure

        for result in self._results:
            if isinstance(result, Failure):
                self.n_failed += 1
                typer.echo(f"Error: {result.error}", err=True)
            yield result
