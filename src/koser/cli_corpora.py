"""Commands that bring corpora in: ``koser get`` and ``koser prepare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from koser.errors import ConfigError

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
    from koser.terminal_corpora import byte_bar

    def accept(release: Release) -> bool:
        typer.echo(release.describe())
        return accept_licence or _says_yes()

    release = find_release(corpus, url=url)
    with byte_bar(corpus) as progress:
        acquired = get_release(
            release, to or Path("corpora") / corpus, accept=accept, source=source, progress=progress
        )
    folder = acquired.folder
    if acquired.proof:
        typer.echo(f"Fetched to {folder}: {acquired.proof}.")
    else:
        typer.echo(f"Already there: {folder}")
    typer.echo(f"Next: koser prepare {corpus} {folder} --out {corpus}.parquet")


def _says_yes() -> bool:
    typer.echo("Type yes to accept: ", nl=False)
    try:
        return input().strip().casefold() == "yes"
    except EOFError:  # nobody is there to answer
        typer.echo("")
        return False


def prepare(
    corpus: Annotated[str, typer.Argument(help=CORPORA)],
    root: Annotated[Path, typer.Argument(help="Folder of the corpus, or file of a table.")],
    out: Annotated[Path, typer.Option(help="The manifest to write (Parquet).")],
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
    if corpus == corpora.AUTO:
        found = corpora.recognise(root)
        typer.echo(f"'{root}' looks like {found.corpus}: {found.reason}.")
        corpus = found.corpus
    manifest = corpora.prepare(corpus, root, given)
    manifest.write(out)
    print_manifest(manifest, out)


def _pairs(items: list[str]) -> dict[str, str]:
    pairs = {}
    for item in items:
        key, separator, value = item.partition("=")
        if not (key and separator and value):
            raise ConfigError(f"'--column {item}' is no KOSER_COLUMN=YOUR_COLUMN.")
        pairs[key] = value
    return pairs
