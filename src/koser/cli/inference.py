"""The commands that use a trained model. Each handler parses, calls, prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from koser.cli.enrolling import enrolled
from koser.cli.options import (
    Quiet,
    Workers,
)
from koser.cli.values import predict_values, refuse_label_options
from koser.cli.writing import check_format, exit_on_failures, means_folder, write_results
from koser.errors import AudioError, ConfigError
from koser.storage.places import is_url, name_of

if TYPE_CHECKING:
    from koser.audio.reading import Clip
    from koser.engines.choosing import EngineOptions
    from koser.inference.bulk import ModelSource
    from koser.inference.recognizer import Recognizer
    from koser.inference.timeline import Timeline

# Nothing that loads torch or polars is imported before it is needed: a prediction from an
# ONNX model needs neither.


class Format(StrEnum):
    """How results are written; of whole files, or with --timeline."""

    table = "table"
    json = "json"
    csv = "csv"
    parquet = "parquet"
    rttm = "rttm"
    srt = "srt"
    vtt = "vtt"
    audacity = "audacity"
    textgrid = "textgrid"


Encoder = Annotated[
    str | None,
    typer.Option(help="Where the model's pretrained encoder is now, if it was moved."),
]

MovedWhisper = Annotated[
    str | None, typer.Option("--whisper", help="Where the model's Whisper is now.")
]
MovedTextModel = Annotated[
    str | None, typer.Option("--text-model", help="Where the model's text model is now.")
]


def predict(
    model: Annotated[Path, typer.Argument(help="Run folder, a .pth from one, or a .onnx.")],
    paths: Annotated[
        list[str] | None,
        typer.Argument(help="Audio files, and folders to search; URLs of either."),
    ] = None,
    manifest: Annotated[
        str | None,
        typer.Option(help="Or the files of a manifest, or of a folder of them, or of its URL."),
    ] = None,
    encoder: Encoder = None,
    whisper: MovedWhisper = None,
    text_model: MovedTextModel = None,
    timeline: Annotated[
        bool, typer.Option("--timeline", help="Emotions over time, of recordings of any length.")
    ] = False,
    format: Annotated[
        Format,
        typer.Option(
            help="table, json, csv or parquet; with --timeline also rttm, srt, vtt, audacity "
            "or textgrid."
        ),
    ] = Format.table,
    out: Annotated[
        str | None,
        typer.Option(
            help="File or URL to write to instead of printing; with --timeline also a folder. With "
            "--manifest, a folder (a name without a suffix): Parquet shards, and a list of those "
            "that are done, so that an interrupted run goes on."
        ),
    ] = None,
    threshold: Annotated[
        float, typer.Option(help="Probability that a label needs; below it: unsure.")
    ] = 0.0,
    labels: Annotated[
        str | None, typer.Option(help="Choose from these only: angry,neutral,sadness.")
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option(help="With --timeline: window=3, hop=0.5, activity.hangover=0.6 ..."),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="With --timeline: a PNG of waveform and emotions.")
    ] = None,
    speakers: Annotated[
        Path | None,
        typer.Option(help="With --timeline: who speaks when, an RTTM file of a diarization tool."),
    ] = None,
    enrol: Annotated[
        list[str] | None,
        typer.Option(
            help="Speech of the one person that is heard, a file or a folder, to adapt to; given "
            "several times, all of it. With --timeline also first:20, its first 20 s of speech. "
            "For models of koser train --enrol."
        ),
    ] = None,
    shard_rows: Annotated[
        int | None, typer.Option(help="With a folder as --out: utterances in a shard.")
    ] = None,
    workers: Workers = None,
    engine: EngineChoice = EngineKind.local,
    address: Address = None,
    worker_cpus: WorkerCpus = None,
    worker_gpus: WorkerGpus = None,
    batch_rows: BatchRows = None,
    quiet: Quiet = False,
) -> None:
    """Recognise emotions in files or folders, with all probabilities, or valence and arousal."""
    from koser.inference.enrolment import EnrolSource
    from koser.inference.output import FORMATS, find_clips
    from koser.inference.recognizer import load_recognizer
    from koser.inference.values import gives_values

    if (paths or manifest) and gives_values(model):
        of_labels = {
            **{"--whisper": whisper, "--text-model": text_model, "--threshold": threshold or None},
            **{"--labels": labels, "--timeline": timeline, "--set": set, "--picture": picture},
            **{"--speakers": speakers, "--enrol": enrol, "--shard-rows": shard_rows},
            **{"--workers": workers, "--engine ray": engine is EngineKind.ray},
            **{"--address": address, "--worker-cpus": worker_cpus, "--worker-gpus": worker_gpus},
            **{"--batch-rows": batch_rows, f"--format {format}": format.value not in FORMATS},
        }
        refuse_label_options(model, of_labels)
        predict_values(model, paths or [], manifest, encoder=encoder, format=format.value, out=out)
        return
    options = engine_options(engine, workers, address, worker_cpus, worker_gpus, batch_rows)
    chosen = None if labels is None else tuple(_names(labels))
    if not timeline and (set or picture is not None or speakers is not None):
        raise ConfigError("--set, --picture and --speakers are of timelines. Add --timeline.")
    if manifest is not None and not timeline and out is not None and _takes_shards(out):
        if paths or enrol or format not in (Format.table, Format.parquet):
            raise ConfigError("A folder as --out takes a --manifest alone, and holds Parquet.")
        source = _source(model, encoder, whisper, text_model, threshold, chosen)
        _predict_shards(source, manifest, Path(out), shard_rows, options, quiet=quiet)
        return
    if shard_rows or workers or options.kind == "ray":
        raise ConfigError(
            "--shard-rows, --workers and --engine ray are of --manifest with a folder as --out."
        )

    if timeline and manifest is not None:
        raise ConfigError("--timeline takes recordings, not a manifest. Give files or folders.")
    voice = EnrolSource.parse(enrol or [], is_timeline=timeline)
    clips = find_clips(paths or [], manifest)
    if timeline:
        _check_timelines(clips, format.value, out, picture)
    else:
        check_format(format.value, out)
    recognizer = load_recognizer(
        model,
        encoder=encoder,
        whisper=whisper,
        text_model=text_model,
        threshold=threshold,
        labels=chosen,
    )
    recognizer = enrolled(recognizer, voice, (clip.path for clip in clips))
    if timeline:
        first = [f"enrol_first={voice.first}"] if voice.first else []
        made = list(_iter_timelines(recognizer, clips, [*(set or []), *first], speakers))
        _write_timelines(made, format.value, out, picture)
        failed = len(clips) - len(made)
    else:
        results = recognizer.iter_clips(clips)
        failed = write_results(results, recognizer.labels, format.value, out)
    exit_on_failures(failed, len(clips))


def export(
    model: Annotated[Path, typer.Argument(help="Run folder, or a .pth from one.")],
    out: Annotated[Path, typer.Option(help="The .onnx to write.")],
    int8: Annotated[
        bool, typer.Option("--int8", help="Weights as 8-bit integers: smaller, not the same.")
    ] = False,
    encoder: Encoder = None,
) -> None:
    """Write a model as one ONNX file, from waveform to probabilities, and compare the two."""
    from koser.inference.export import PROBE_SECONDS, export_model

    made = export_model(model, out, int8=int8, encoder=encoder)
    spread = f"{PROBE_SECONDS[0]:g} to {PROBE_SECONDS[-1]:g} s"
    typer.echo(f"{made.path}  {made.n_bytes / 1e6:.1f} MB")
    typer.echo(
        f"Probabilities of speech of {spread} differ by at most {made.largest_difference:.1e} "
        f"from the run's."
    )
    if int8:
        typer.echo(
            "What 8-bit weights cost in accuracy depends on the data: predict labelled speech "
            "with both files, and compare."
        )


def _names(labels: str) -> list[str]:
    return [label.strip() for label in labels.split(",") if label.strip()]


def _takes_shards(out: str) -> bool:
    if is_url(out):
        if name_of(out).suffix:
            return False
        raise ConfigError(
            f"'{out}' names no file, and shards are written to a folder of this machine. Give "
            f"--out FOLDER and copy it, or a URL that ends in .parquet, .csv or .json."
        )
    return means_folder(Path(out))


def _source(
    model: Path,
    encoder: str | None,
    whisper: str | None,
    text_model: str | None,
    threshold: float,
    labels: tuple[str, ...] | None,
) -> ModelSource:
    """The model as workers load it, who have other working folders: paths in full."""
    from koser.inference.bulk import ModelSource

    encoder, whisper, text_model = map(_placed, (encoder, whisper, text_model))
    return ModelSource(model.absolute(), encoder, whisper, text_model, threshold, labels)


def _placed(name: str | None) -> str | None:
    """The name of a pretrained model; a folder's in full."""
    return str(Path(name).absolute()) if name is not None and Path(name).is_dir() else name


def _predict_shards(
    source: ModelSource,
    manifest: str,
    out: Path,
    shard_rows: int | None,
    options: EngineOptions,
    *,
    quiet: bool,
) -> None:
    from koser.data.stored import StoredManifest
    from koser.engines.choosing import opened_engine
    from koser.inference.bulk import SHARD_ROWS, predict_manifest
    from koser.terminal import bar, notes_shown

    with (
        notes_shown(),
        StoredManifest.opened(manifest) as stored,
        opened_engine(options) as engine,
        bar("utterances", quiet=quiet) as show,
    ):
        done = predict_manifest(
            source,
            stored,
            out,
            engine,
            shard_rows=SHARD_ROWS if shard_rows is None else shard_rows,
            on_failure=lambda name, reason: typer.echo(f"Error: {name}: {reason}", err=True),
            progress=show,
        )
    typer.echo(f"Results: {out}  {done.n_rows} utterances in {done.n_shards} shards")
    exit_on_failures(done.n_failed, done.n_rows)


def _is_folder(out: str | None) -> bool:
    return out is not None and (Path(out).is_dir() or (is_url(out) and out.endswith("/")))


def _check_timelines(
    clips: Sequence[Clip], format: str, out: str | None, picture: Path | None
) -> None:
    from koser.inference.writers import check_format

    check_format(format, n_recordings=len(clips), is_folder=_is_folder(out))
    if picture is not None and len(clips) != 1:
        raise ConfigError(f"--picture is of one recording, not of {len(clips)}.")


def _iter_timelines(
    recognizer: Recognizer,
    clips: Sequence[Clip],
    overrides: Sequence[str],
    speakers: Path | None,
) -> Iterator[Timeline]:
    """Timelines of what can be read; the rest is told."""
    from koser.config import resolve_config
    from koser.inference.segments import TimelineOptions
    from koser.inference.speakers import read_turns, with_speakers
    from koser.inference.timeline import make_timeline

    options = resolve_config(TimelineOptions, overrides=overrides)
    turns = {clip.path: read_turns(speakers, clip.path) for clip in clips} if speakers else {}
    for clip in clips:
        try:
            made = make_timeline(recognizer, clip.path, options)
        except AudioError as error:
            typer.echo(f"Error: {error}", err=True)
        else:
            yield with_speakers(made, turns[clip.path]) if clip.path in turns else made


def _write_timelines(
    timelines: Sequence[Timeline], format: str, out: str | None, picture: Path | None
) -> None:
    from koser.inference.output import text_file
    from koser.inference.writers import file_names, render_timelines

    if not timelines:
        return
    if out is None:
        typer.echo(render_timelines(timelines, format), nl=False)
    elif _is_folder(out):
        for timeline, name in zip(timelines, file_names(timelines, format), strict=True):
            with text_file(f"{out.rstrip('/')}/{name}") as file:
                file.write(render_timelines([timeline], format))
    else:
        with text_file(out) as file:
            file.write(render_timelines(timelines, format))
    if picture is not None:
        from koser.reporting.timeline import plot_timeline

        plot_timeline(timelines[0], picture)
