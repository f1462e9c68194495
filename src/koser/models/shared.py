"""A checkpoint as others can open it: weights as safetensors, everything else as JSON.

The JSON has a hash of every file beside it that a prediction may depend on, so that what was
damaged or changed on the way is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from koser.errors import CheckpointError
from koser.files import write_atomically
from koser.models.checkpoint import Checkpoint

FORMAT = "koser-shared-1"
WEIGHTS = "model.safetensors"
CONFIG = "config.json"
# What may lie beside them and is hashed; nothing else is ever read or copied.
ONNX = "model.onnx"
METRICS = "metrics.json"
HASHED = (WEIGHTS, ONNX, METRICS)


def write_shared(checkpoint: Checkpoint, folder: Path) -> None:
    """Write a checkpoint into `folder`; files of `HASHED` that are there already get hashes.

    Raises
    ------
    CheckpointError
        If it cannot be written.
    """
    from safetensors.torch import save_file

    # safetensors takes no views and no two names for one memory.
    state = {
        name: tensor.detach().clone().contiguous() for name, tensor in checkpoint.state.items()
    }
    try:
        save_file(state, folder / WEIGHTS)
        values = {
            "format": FORMAT,
            "system": checkpoint.system,
            "labels": list(checkpoint.labels),
            "temperature": checkpoint.temperature,
            "config": checkpoint.config,
            "origin": checkpoint.origin,
            "files": {
                name: hash_file(folder / name) for name in HASHED if (folder / name).is_file()
            },
        }
        content = json.dumps(values, ensure_ascii=False, indent=2, allow_nan=False)
        write_atomically(folder / CONFIG, f"{content}\n".encode())
    except OSError as error:
        raise CheckpointError(f"Cannot write '{folder}': {error.strerror or error}.") from error


def read_shared(folder: Path) -> Checkpoint:
    """Read what `write_shared` wrote, onto the CPU.

    Raises
    ------
    CheckpointError
        If files are missing, damaged, of another program, or not those that were shared.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    values = read_config(folder)
    # The very bytes that were hashed are parsed: nothing changes in between.
    content = _checked_content(folder, values, WEIGHTS)
    try:
        state = load(content)
        return Checkpoint(
            system=str(values["system"]),
            labels=tuple(map(str, values["labels"])),
            config=dict(values["config"]),
            origin=dict(values["origin"]),
            state=state,
            temperature=float(values["temperature"]),
        )
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"'{folder}' is a shared model with a damaged {CONFIG} or {WEIGHTS} ({error!r}). "
            f"Pull it again."
        ) from error


def check_files(folder: Path) -> list[str]:
    """The files of a shared model, each with the content that was shared.

    Raises
    ------
    CheckpointError
        If one is missing, was changed, or should not be there.
    """
    values = read_config(folder)
    for name in values["files"]:
        _checked_content(folder, values, name)
    return list(values["files"])


def is_shared(folder: Path) -> bool:
    """Whether `folder` has the two files of a shared model."""
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def hash_file(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_config(folder: Path) -> dict[str, Any]:
    """What ``config.json`` of a shared model says.

    Raises
    ------
    CheckpointError
        If it is missing, or of another program.
    """
    path = folder / CONFIG
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"No {CONFIG} in '{folder}'. Give a folder that koser push made."
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"'{path}' cannot be read: {error}.") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise CheckpointError(
            f"'{path}' is not of a model that koser shared (format {FORMAT}). "
            f"Give a folder that koser push made."
        )
    files = values.get("files")
    if not isinstance(files, dict) or WEIGHTS not in files or not files.keys() <= set(HASHED):
        raise CheckpointError(
            f"'{path}' must name {WEIGHTS}, and beside it only {ONNX} and {METRICS}. Pull it again."
        )
    return values


def _checked_content(folder: Path, values: Mapping[str, Any], name: str) -> bytes:
    path = folder / name
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"Cannot read '{path}': {error.strerror}. Pull it again.") from error
    if hashlib.sha256(content).hexdigest() != values["files"][name]:
        raise CheckpointError(
            f"'{path}' is not the file that was shared: its SHA-256 is not the one in {CONFIG}. "
            f"It was damaged or changed on its way; pull it again."
        )
    return content
