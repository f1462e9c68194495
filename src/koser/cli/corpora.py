"""Commands up to a split: ``koser get``, ``prepare``, ``info``, ``split``."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from koser.cli.engines import (
    Address,
    BatchRows,
    EngineChoice,
    EngineKind,
    WorkerCpus,
    WorkerGpus,
    engine_options,
)
from koser.cli.options import (
    Folds,
    ManifestPlace,
    ScriptFolds,
    Seed,
    TestFraction,
    ValFraction,
    Workers,
    split_options,
)
from koser.errors import ConfigError
from koser.storage.places import is_url

# Nothing that loads polars is imported before a handler runs.

CORPORA = (
    "auto, or one of aihub263, aihub466, aihub71631 (and aihub71632), aihub637, aihub259, aihub58, "
    "kemdy19, kemdy20, kemocon, hikia, emotiontts, ravdess, emodb, nemo, folder, table."
)


def get(
    corpus: Annotated[str, typer.Argument(help="emotiontts, ravdess, emodb or nemo.")],
    to: Annotated[
        Path | None, typer.Option(help="Folder to make; by default corpora/NAME.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="A copy you have, archive or folder, instead of a download."),
    ] = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept the licence without being asked.")
    ] = False,
    url: Annotated[
        str | None, typer.Option(help="Another address of the same archive, such as a mirror.")
    ] = None,
) -> None:
    """Fetch an open corpus: shows its licence, asks, resumes, checks, unpacks."""
    from koser.data.releases import Release, find_release
    from koser.data.releases import get as get_release
    from koser.terminal import notes_shown
    from koser.terminal.corpora import byte_bar

    def accept(release: Release) -> bool:
        typer.echo(release.describe())
        return accept_licence or _says_yes()

    release = find_release(corpus, url=url)
    with notes_shown(), byte_bar(corpus) as progress:
        acquired = get_release(
            release, to or Path("corpora") / corpus, accept=accept, source=source, progress=progress
        )
    folder = acquired.folder
    if acquired.proof:
        typer.echo(f"Fetched to {folder}: {acquired.proof}.")
    else:
        typer.echo(f"Already there: {folder}")
    typer.echo(f"Next: koser prepare {corpus} {quote(str(folder))} --out {corpus}.parquet")


def prepare(
    corpus: Annotated[str, typer.Argument(help=CORPORA)],
    root: Annotated[
        str,
        typer.Argument(
            help="Folder of the corpus, or file of a table. Of folder and table also a URL."
        ),
    ],
    out: Annotated[str, typer.Option(help="The manifest to write (Parquet); may be a URL.")],
    labels: Annotated[
        str | None,
        typer.Option(
            help="Where the label comes from. aihub263: situation, majority, soft. kemdy19, "
            "kemdy20: majority, soft. aihub71631: speaker, verified. aihub58: multimodal, sound, "
            "text, image. kemocon: valence, arousal. The first is the default."
        ),
    ] = None,
    min_votes: Annotated[
        int | None, typer.Option(help="With --labels majority: votes that the label needs.")
    ] = None,
    annotator: Annotated[
        str | None, typer.Option(help="kemocon: external, partner or self.")
    ] = None,
    frame_rate: Annotated[
        float | None, typer.Option(help="aihub58: frames a second of its videos.")
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
        str | None, typer.Option(help="table: folder or URL that its paths are relative to.")
    ] = None,
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="table: the speech was made by a machine.")
    ] = False,
    workers: Workers = None,
    engine: EngineChoice = EngineKind.local,
    address: Address = None,
    worker_cpus: WorkerCpus = None,
    worker_gpus: WorkerGpus = None,
    batch_rows: BatchRows = None,
) -> None:
    """Turn a corpus folder into a manifest, and account for every row."""
    from koser.data import corpora
    from koser.engines.choosing import opened_engine
    from koser.storage.writing import check_target
    from koser.terminal import print_manifest

    options = {
        "labels": labels,
        "min_votes": min_votes,
        "annotator": annotator,
        "frame_rate": frame_rate,
        "speaker_pattern": speaker_pattern,
        "columns": None if column is None else _pairs(column),
        "audio_root": audio_root,
        "is_synthetic": synthetic or None,
    }
    given = {name: value for name, value in options.items() if value is not None}
    if is_url(out):
        check_target(out)  # before the work
    if corpus == corpora.AUTO and not is_url(root):
        found = corpora.recognise(Path(root))
        typer.echo(f"'{root}' looks like {found.corpus}: {found.reason}.")
        corpus = found.corpus
    chosen = engine_options(engine, workers, address, worker_cpus, worker_gpus, batch_rows)
    with opened_engine(chosen) as where:
        manifest = corpora.prepare(corpus, root, given, engine=where)
    manifest.write(out)
    print_manifest(manifest, out)


def map_(
    manifest: ManifestPlace,
    mapping: Annotated[
        str,
        typer.Option(
            help="seven, seven-without-calm, four, four-without-calm, or FILE.toml with keep, "
            "\\[map] and \\[drop]. Every label of the manifest must be in it."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The manifest to write (Parquet).")],
) -> None:
    """Map a manifest's labels to those of another task; every row left out is reported."""
    from koser.data.manifest import Manifest
    from koser.data.mapping import map_labels, read_mapping
    from koser.terminal import print_manifest

    chosen = read_mapping(mapping)
    mapped = map_labels(Manifest.read(manifest), chosen)
    mapped.write(out)
    print_manifest(mapped, out)


def info(
    manifest: ManifestPlace,
    left_out: Annotated[
        bool, typer.Option("--left-out", help="List every row that was left out, and why.")
    ] = False,
) -> None:
    """Show what a manifest holds: counts, durations, agreement, rows left out."""
    from koser.data.manifest import Manifest
    from koser.terminal import print_left_out, print_summary

    loaded = Manifest.read(manifest)
    print_left_out(loaded) if left_out else print_summary(loaded)


def split(
    manifest: ManifestPlace,
    by: Annotated[
        str,
        typer.Option(
            help="random, speaker, speaker+script, session, leave_one_speaker_out, kfold "
            "or fixed:LIST (fixed:ravdess is shipped)."
        ),
    ],
    out: Annotated[str, typer.Option(help="The split to write (Parquet); may be a URL.")],
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


def _says_yes() -> bool:
    typer.echo("Type yes to accept: ", nl=False)
    try:
        return input().strip().casefold() == "yes"
    except EOFError:  # nobody is there to answer
        typer.echo("")
        return False


def _pairs(items: list[str]) -> dict[str, str]:
    pairs = {}
    for item in items:
        key, separator, value = item.partition("=")
        if not (key and separator and value):
            raise ConfigError(f"'--column {item}' is no KOSER_COLUMN=YOUR_COLUMN.")
        pairs[key] = value
    return pairs
