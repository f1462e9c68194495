"""The commands that take a model elsewhere: behind HTTP, to a hub or a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from koser.sharing import Shared


def serve(
    model: Annotated[Path, typer.Argument(help="Run folder, .pth or .onnx.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for every one of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any.", min=0)] = 8000,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="File of API keys, one a line; without it everybody is answered."),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="Where the model's pretrained encoder is now, if it was moved."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A limit, NAME=VALUE: see docs/serving.md."),
    ] = None,
) -> None:
    """Serve a model: REST; one of labels by WebSocket too, and with a page to try it on."""
    from logging.config import dictConfig

    from koser.config import resolve_config
    from koser.inference.models import load_model
    from koser.inference.values import gives_values, load_regressor
    from koser.serving.gate import Keys
    from koser.serving.logs import log_settings
    from koser.serving.running import new_server, open_socket
    from koser.serving.service import Service
    from koser.serving.settings import ServeConfig
    from koser.serving.values import ValueService

    config = resolve_config(ServeConfig, overrides=settings or [])
    keys = None if api_key_file is None else Keys.read(api_key_file)
    listening = open_socket(host, port)
    service: Service | ValueService
    if gives_values(model):
        service = ValueService(load_regressor(model, encoder=encoder), config)
    else:
        service = Service(load_model(model, encoder=encoder), config)
    server = new_server(service, keys)
    place = f"[{host}]" if ":" in host else host
    address = f"http://{place}:{listening.getsockname()[1]}/"
    typer.echo(f"koser serves '{model}' at {address} (Ctrl-C ends it)", err=True)
    if keys is None and host not in ("127.0.0.1", "::1", "localhost"):
        typer.echo("Note: whoever reaches it is answered. Give --api-key-file.", err=True)
    dictConfig(log_settings())
    server.run(sockets=[listening])
    if not server.started:
        raise typer.Exit(1)


def push(
    run: Annotated[Path, typer.Argument(help="Run folder, or a .pth from one.")],
    destination: Annotated[
        str, typer.Argument(help="A folder, or a repository: hf:OWNER/NAME, hf:OWNER/NAME@BRANCH.")
    ],
    encoder: Annotated[
        str | None,
        typer.Option(help="Hub id of the model's pretrained encoder, if it was a local folder."),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="A new repository is for everybody to see.")
    ] = False,
) -> None:
    """Share a trained model: safetensors, settings, model card."""
    from koser import sharing

    _print_shared("Pushed", sharing.push(run, destination, encoder=encoder, is_public=public))


def pull(
    source: Annotated[
        str,
        typer.Argument(help="A folder of koser push, or hf:OWNER/NAME, hf:OWNER/NAME@REVISION."),
    ],
    out: Annotated[Path, typer.Option(help="The folder to make; a model for every command.")],
) -> None:
    """Get a shared model, exactly as it was pushed."""
    from koser import sharing

    _print_shared("Pulled", sharing.pull(source, out))


def _print_shared(what: str, shared: Shared) -> None:
    typer.echo(f"{what}: {shared.place} ({', '.join(shared.files)})")
    for note in shared.notes:
        typer.echo(f"Note: {note}", err=True)
