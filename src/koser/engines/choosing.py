"""Which engine a command runs on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from koser.engines.cluster import Resources, connected
from koser.engines.engine import Engine
from koser.engines.local import LocalEngine, available_cores
from koser.engines.ray_engine import RayEngine
from koser.errors import ConfigError


@dataclass(frozen=True)
class EngineOptions:
    """Which engine, and how many workers of what size.

    Attributes
    ----------
    kind : {'local', 'ray'}
        Processes of this machine, or actors of a Ray cluster.
    n_workers : int or None
        Workers; by default one per core here, as many as there is room for on a cluster.
    address : str or None
        Of the cluster; without one, Ray is started on this machine for as long as it takes.
    worker_cpus, worker_gpus : float or None
        What an actor takes of a cluster: by default one core, and no GPU.
    batch_rows : int or None
        Rows sent to an actor at once.

    Raises
    ------
    ConfigError
        If something is out of range, or of a cluster where there is none.
    """

    kind: Literal["local", "ray"] = "local"
    n_workers: int | None = None
    address: str | None = None
    worker_cpus: float | None = None
    worker_gpus: float | None = None
    batch_rows: int | None = None

    def __post_init__(self) -> None:
        numbers = {
            "--workers": self.n_workers,
            "--worker-cpus": self.worker_cpus,
            "--worker-gpus": self.worker_gpus,
            "--batch-rows": self.batch_rows,
        }
        for name, value in numbers.items():
            if value is not None and not value > 0:
                raise ConfigError(f"{name} {value:g}: give a number above 0, or leave it out.")
        of_ray = {"--address": self.address, **numbers}
        del of_ray["--workers"]
        if self.kind == "local" and any(value is not None for value in of_ray.values()):
            given = ", ".join(name for name, value in of_ray.items() if value is not None)
            raise ConfigError(f"{given}: of a Ray cluster. Add --engine ray.")


@contextmanager
def opened_engine(options: EngineOptions) -> Iterator[Engine]:
    """The engine within the block.

    Raises
    ------
    EngineError
        If the cluster cannot be used.
    ModuleNotFoundError
        If Ray is asked for and not installed.
    """
    if options.kind == "local":
        yield LocalEngine(options.n_workers or available_cores())
        return
    each = Resources(options.worker_cpus or 1.0, options.worker_gpus or 0.0)
    with connected(options.address):
        yield RayEngine(options.n_workers, each, options.batch_rows or 128)
