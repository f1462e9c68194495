"""The ``koser`` command. Each handler parses, calls one public function, prints."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from koser import cli_audit, cli_results, cli_text, cli_training
from koser.cli_training import Folds, ScriptFolds, Seed, TestFraction, ValFraction, split_options
from koser.errors import ConfigError, one_line_errors

# Nothing that loads polars or torch is imported before a handler runs: `koser --help`
# must not wait for them.

app = typer.Typer(
    name="koser",
    help="Korean speech emotion recognition that can be believed and deployed.",
    epilog="Add --debug to any command to see where an error comes from.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Format(StrEnum):
    """How predictions are written."""

    table = "table"
    json = "json"
    csv = "csv"


class LabelPolicy(StrEnum):
    """Where the labels of AI Hub 263 come from."""

    situation = "situation"
    majority = "majority"
    soft = "soft"


ManifestPath = Annotated[Path, typer.Argument(help="Manifest made by `koser prepare`.")]


@app.command()
def prepare(
    corpus: Annotated[
        str, typer.Argument(help="aihub263, emotiontts, ravdess, emodb, folder or table.")
    ],
    root: Annotated[Path, typer.Argument(help="Folder of the corpus, or file of a table.")],
    out: Annotated[Path, typer.Option(help="The manifest to write (Parquet).")],
    labels: Annotated[
        LabelPolicy | None, typer.Option(help="aihub263: where the label comes from.")
    ] = None,
    min_votes: Annotated[
        int | None, typer.Option(help="aihub263, majority: votes that the label needs.")
    ] = None,
    speaker_pattern: Annotated[
        str | None,
        typer.Option(help="folder: regular expression whose group is the speaker, on the path."),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="table: KOSER_COLUMN=YOUR_COLUMN; may be given several times."),
    ] = None,
    audio_root: Annotated[
        Path | None, typer.Option(help="table: folder that its paths are relative to.")
    ] = None,
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="table: the speech was made by a machine.")
    ] = False,
) -> None:
    """Turn a corpus folder into a manifest, and account for every row."""
    from koser.data import corpora
    from koser.terminal import print_manifest

    options = {
        "labels": None if labels is None else labels.value,
        "min_votes": min_votes,
        "speaker_pattern": speaker_pattern,
        "columns": None if column is None else _pairs(column),
        "audio_root": audio_root,
        "is_synthetic": synthetic or None,
    }
    given = {name: value for name, value in options.items() if value is not None}
    manifest = corpora.prepare(corpus, root, given)
    manifest.write(out)
    print_manifest(manifest, out)


@app.command()
def info(
    manifest: ManifestPath,
    left_out: Annotated[
        bool, typer.Option("--left-out", help="List every row that was left out, and why.")
    ] = False,
) -> None:
    """Show what a manifest holds: counts, durations, agreement, rows left out."""
    from koser.data.manifest import Manifest
    from koser.terminal import print_left_out, print_summary

    loaded = Manifest.read(manifest)
    print_left_out(loaded) if left_out else print_summary(loaded)


@app.command()
def split(
    manifest: ManifestPath,
    by: Annotated[
        str,
        typer.Option(
            help="random, speaker, speaker+script, session, leave_one_speaker_out, kfold "
            "or fixed:LIST (fixed:ravdess is shipped)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The split to write (Parquet).")],
    seed: Seed = 42,
    test_fraction: TestFraction = 0.2,
    val_fraction: ValFraction = 0.1,
    folds: Folds = None,
    script_folds: ScriptFolds = None,
) -> None:
    """Make a split and keep it, to be used with `koser train --split FILE`."""
    from koser.data.manifest import Manifest
    from koser.data.splits import make_split
    from koser.terminal import print_split

    loaded = Manifest.read(manifest)
    options = split_options(seed, test_fraction, val_fraction, folds, script_folds)
    made = make_split(loaded, by, options)
    made.write(out)
    print_split(made, loaded, out)


app.command()(cli_audit.audit)
app.command()(cli_training.train)
app.command()(cli_training.extract)
app.command()(cli_text.transcribe)
app.command()(cli_results.report)
app.command()(cli_results.compare)
app.command()(cli_results.evaluate)
app.command()(cli_results.reproduce)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="Run folder, or a .pth from one.")],
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Audio files, and folders to search.")
    ] = None,
    manifest: Annotated[Path | None, typer.Option(help="Or the files of a manifest.")] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="Where the model's pretrained encoder is now, if it was moved."),
    ] = None,
    whisper: cli_text.MovedWhisper = None,
    text_model: cli_text.MovedTextModel = None,
    format: Annotated[Format, typer.Option(help="How to print.")] = Format.table,
    out: Annotated[Path | None, typer.Option(help="File to write to instead of printing.")] = None,
) -> None:
    """Recognise emotions in files or folders, with all probabilities."""
    from koser.inference.output import find_clips, iter_lines, text_file
    from koser.inference.recognizer import Failure, load_recognizer

    clips = find_clips(paths or [], manifest)
    moved = {"encoder": encoder, "whisper": whisper, "text_model": text_model}
    recognizer = load_recognizer(model, **{name: at for name, at in moved.items() if at})
    n_failed = 0

    def results() -> Iterator[Any]:
        nonlocal n_failed
        for result in recognizer.iter_clips(clips):
            if isinstance(result, Failure):
                n_failed += 1
                typer.echo(f"Error: {result.error}", err=True)
            yield result

    lines = iter_lines(results(), format.value, recognizer.labels)
    if out is None:
        for line in lines:
            typer.echo(line)
    else:
        with text_file(out) as file:
            file.writelines(f"{line}\n" for line in lines)
    if n_failed:
        typer.echo(f"{n_failed} of {len(clips)} could not be recognised.", err=True)
        raise typer.Exit(1)


app.command()(cli_training.demo)


def run_app(command: Callable[..., None] | typer.Typer) -> None:
    """Run a typer app or a function as a program, refusing in one line.

    ``--debug`` anywhere on the command line shows the traceback instead.
    """
    debug = "--debug" in sys.argv
    sys.argv[:] = [argument for argument in sys.argv if argument != "--debug"]
    with one_line_errors(debug=debug):
        if isinstance(command, typer.Typer):
            command()
        else:
            single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            single.command()(command)
            single()


def main() -> None:
    """Entry point of ``koser``."""
    run_app(app)


def _pairs(items: list[str]) -> dict[str, str]:
    pairs = {}
    for item in items:
        key, separator, value = item.partition("=")
        if not (key and separator and value):
            raise ConfigError(f"'--column {item}' is no KOSER_COLUMN=YOUR_COLUMN.")
        pairs[key] = value
    return pairs
