"""ONNX models run by onnxruntime, the same way everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from koser.errors import CheckpointError


def open_session(model: Path | bytes, *, name: str, n_threads: int = 1) -> Any:
    """Open an ONNX model for the CPU.

    Parameters
    ----------
    model : Path or bytes
        The file, or its content.
    name : str
        What it is called in an error.
    n_threads : int
        Of one call; 0 for as many as there are cores. One, because calls of several threads
        share the cores better than threads of one call do.

    Returns
    -------
    onnxruntime.InferenceSession
        Its `run` may be called by several threads at once.

    Raises
    ------
    CheckpointError
        If the file is missing or is no ONNX model.
    """
    import onnxruntime

    if isinstance(model, Path) and not model.is_file():
        raise CheckpointError(f"No model at '{model}'. Check the path.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors: its warnings are about its own optimisations
    try:
        return onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model),
            options,
            providers=["CPUExecutionProvider"],
        )
    except (
        onnxruntime.capi.onnxruntime_pybind11_state.Fail,
        onnxruntime.capi.onnxruntime_pybind11_state.InvalidProtobuf,
        onnxruntime.capi.onnxruntime_pybind11_state.InvalidGraph,
        onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument,
        onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented,
    ) as error:
        raise CheckpointError(
            f"'{name}' is no ONNX model that onnxruntime {onnxruntime.__version__} can run "
            f"({str(error).strip().splitlines()[0]}). Export it again with koser export."
        ) from error


def shrinking_options() -> Any:
    """Options of one `run` that gives back what memory it took beyond the usual.

    The runtime keeps the memory of its largest run for the next ones. That is quick, and
    leaves no holes; it would also keep that of one very long sound for good.

    Returns
    -------
    onnxruntime.RunOptions
    """
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options
