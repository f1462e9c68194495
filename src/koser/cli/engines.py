"""Options of the commands that can run on a cluster."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from koser.engines.choosing import EngineOptions


class EngineKind(StrEnum):
    """Where work runs."""

    local = "local"
    ray = "ray"


EngineChoice = Annotated[
    EngineKind,
    typer.Option("--engine", help="local: processes of this machine. ray: a Ray cluster."),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="With --engine ray: HOST:PORT of the cluster's head, or auto. By default Ray is "
        "started on this machine for as long as the command takes."
    ),
]
WorkerCpus = Annotated[
    float | None, typer.Option(help="With --engine ray: cores that a worker takes; 1 by default.")
]
WorkerGpus = Annotated[
    float | None,
    typer.Option(help="With --engine ray: GPUs that a worker takes; 0.5 lets two share one."),
]
BatchRows = Annotated[
    int | None,
    typer.Option(help="With --engine ray: rows sent to a worker at once; 128 by default."),
]


def engine_options(
    engine: EngineKind,
    workers: int | None,
    address: str | None,
    worker_cpus: float | None,
    worker_gpus: float | None,
    batch_rows: int | None,
) -> EngineOptions:
    """The engine as it was asked for."""
    from koser.engines.choosing import EngineOptions

    return EngineOptions(engine.value, workers, address, worker_cpus, worker_gpus, batch_rows)
