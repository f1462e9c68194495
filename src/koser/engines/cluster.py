"""A Ray cluster: reach it, and refuse in one line what would not work on it."""

from __future__ import annotations

import logging
import os
import platform
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from koser.errors import EngineError

# Seconds. A cluster that answers at all answers within the first.
_TO_CONNECT = 5.0
_TO_START_WORKERS = 120.0


@dataclass(frozen=True)
class Resources:
    """What one worker takes of a cluster.

    Attributes
    ----------
    cpus, gpus : float
        CPU cores, and the share of a GPU: 0.5 lets two workers have one.
    """

    cpus: float = 1.0
    gpus: float = 0.0


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A cluster within the block; one of this machine alone, started for it, without `address`.

    Parameters
    ----------
    address : str, optional
        ``HOST:PORT`` of the head node, or ``"auto"`` for the cluster this machine is part of.

    Raises
    ------
    EngineError
        If there is none at `address`, or it is of another version.
    ModuleNotFoundError
        If Ray is not installed.
    """
    # Read when Ray is imported. It reports what is run to its makers unless told not to, and
    # logs what koser handles itself, such as the death of a worker.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    if address is not None and address != "auto":
        _refuse_silence(address)
    options: dict[str, Any] = {"address": address, "log_to_driver": False}
    if address is None:
        options |= {"address": "local", "include_dashboard": False}
    try:
        ray.init(logging_level=logging.ERROR, configure_logging=False, **options)
    except (RuntimeError, ConnectionError, ValueError, OSError) as error:
        raise EngineError(_explain(address, error)) from error
    try:
        _refuse_other_versions()
        yield
    finally:
        ray.shutdown()


def worker_count(wanted: int | None, each: Resources) -> int:
    """How many workers a cluster is asked for: `wanted`, or as many as it has room for.

    Raises
    ------
    EngineError
        If it has no room for one.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    # A worker is on one node, so what two nodes have left does not add up.
    room = sum(_room(node, each) for node in nodes)
    if room:
        return min(wanted, room) if wanted else room
    n_cpus, n_gpus = (int(sum(node.get(name, 0) for node in nodes)) for name in ("CPU", "GPU"))
    has = f"The cluster has {n_cpus} CPUs and {n_gpus} GPUs on {len(nodes)} nodes"
    if each.gpus and not n_gpus:
        raise EngineError(
            f"{has}, and --worker-gpus {each.gpus:g} asks for a GPU. Start a node that has one "
            f"(ray start --num-gpus=1 --address=…), or leave --worker-gpus out."
        )
    raise EngineError(
        f"{has}: on none is there room for a worker of {each.cpus:g} CPUs and {each.gpus:g} GPUs. "
        f"Ask for less (--worker-cpus, --worker-gpus)."
    )


def _room(node: dict[str, float], each: Resources) -> int:
    shares = [node.get("CPU", 0.0) / each.cpus if each.cpus else float("inf")]
    if each.gpus:
        n_gpus = node.get("GPU", 0.0)
        # Fractions of different GPUs do not make one worker.
        of_one = int(1 / each.gpus + 1e-9)
        shares.append(n_gpus * of_one if of_one else n_gpus // each.gpus)
    return int(min(shares))


def _refuse_silence(address: str) -> None:
    """Ask first whether anything listens: Ray would try for a minute, then end the process."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        raise EngineError(f"--address {address}: give HOST:PORT of the head node, or auto.")
    try:
        socket.create_connection((host, int(port)), timeout=_TO_CONNECT).close()
    except OSError as error:
        raise EngineError(
            f"No Ray cluster answers at {address} ({error.strerror or error}). Start one there "
            f"(ray start --head --port={port}), or check address and firewall."
        ) from error


def _explain(address: str | None, error: Exception) -> str:
    text = " ".join(str(error).split())
    if "ersion mismatch" in text:
        return (
            f"The cluster at {address} is of another version: {text} Install the same Ray and "
            f"Python on both sides; here they are {version('ray')} and {platform.python_version()}."
        )
    if address == "auto":
        return f"No Ray cluster runs on this machine ({text}). Give its --address HOST:PORT."
    if address is None:
        return f"Ray cannot be started on this machine: {text}"
    return f"The Ray cluster at {address} cannot be used: {text}"


def _refuse_other_versions() -> None:
    """Every node must have this koser, or a result would depend on where it was made."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask: Any = ray.remote(num_cpus=0, max_retries=0)(_koser_version)
    asked = []
    for node in ray.nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            answer = ask.options(scheduling_strategy=there).remote()
            asked.append((answer, node["NodeManagerAddress"]))
    ours = _koser_version()
    for answer, where in asked:
        try:
            theirs = ray.get(answer, timeout=_TO_START_WORKERS)
        except (ray.exceptions.RayError, ModuleNotFoundError) as error:
            raise EngineError(
                f"koser does not run on the cluster's node {where} ({_first_cause(error)}). "
                f"Install koser[ray] there, or give the job a runtime_env with it: docs/engines.md."
            ) from error
        if theirs != ours:
            raise EngineError(
                f"The cluster's node {where} has koser {theirs}, here it is {ours}. Install the "
                f"same on both."
            )


def _koser_version() -> str:
    import koser

    return koser.__version__


def _first_cause(error: BaseException) -> str:
    cause = getattr(error, "cause", None) or error
    return f"{type(cause).__name__}: {str(cause).strip().splitlines()[-1] if str(cause) else ''}"
