"""Checkpoints: a trained system as one ``.pth`` of tensors and plain values.

Read with ``weights_only=True``: a checkpoint from a stranger can hold numbers, never code.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from koser.errors import CheckpointError
from koser.files import replacing

FORMAT = "koser-1"
# What zipfile and torch raise on files that are damaged, or never were a checkpoint.
_UNREADABLE = (
    *(RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError),
    *(AttributeError, NotImplementedError, zipfile.BadZipFile, zlib.error, struct.error),
    pickle.UnpicklingError,
)
# Pretrained models that a checkpoint may need, and the options that say where they are.
_MODELS = {
    "encoder": ("pretrained encoder", "--encoder"),
    "whisper": ("Whisper", "--whisper"),
    "text": ("text model", "--text-model"),
}


@dataclass(frozen=True)
class Checkpoint:
    """All that turns sound into probabilities, and where it comes from.

    Attributes
    ----------
    system : str
        Name of the system that made it.
    labels : tuple[str, ...]
        The classes, in the order of the network's outputs.
    config : dict
        The system's resolved configuration.
    origin : dict
        Protocol, split hash, seed, corpus and the like; never needed to predict.
    state : dict[str, torch.Tensor]
        The network's trained parameters and its buffers.
    temperature : float
        What logits are divided by, to be believed: fitted on the val part, 1.0 where it
        was not.
    """

    system: str
    labels: tuple[str, ...]
    config: dict[str, Any]
    origin: dict[str, Any]
    state: dict[str, torch.Tensor]
    temperature: float = 1.0

    def write(self, path: Path) -> None:
        """Write; a reader sees the old file or the whole new one."""
        save_tensors(
            {
                "format": FORMAT,
                "system": self.system,
                "labels": list(self.labels),
                "config": self.config,
                "origin": self.origin,
                "state": self.state,
                "temperature": self.temperature,
            },
            path,
        )

    def with_encoder(self, name: str) -> Checkpoint:
        """The same checkpoint, with its pretrained encoder at another place.

        Raises
        ------
        CheckpointError
            If it has none.
        """
        return self.with_model("encoder", name)

    def with_model(self, part: str, name: str) -> Checkpoint:
        """The same checkpoint, with a pretrained model that it needs at another place.

        Parameters
        ----------
        part : {'encoder', 'whisper', 'text'}
            Which one, as its configuration calls it.
        name : str
            A hub id or a folder.

        Raises
        ------
        CheckpointError
            If it needs none of that kind.
        """
        if part not in self.config:
            what, flag = _MODELS[part]
            raise CheckpointError(
                f"A checkpoint of '{self.system}' has no {what}. Leave {flag} out."
            )
        moved = {**self.config[part], "name": name}
        return replace(self, config={**self.config, part: moved})

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Read what `write` wrote, or `koser push`, onto the CPU.

        Raises
        ------
        CheckpointError
            If the file is missing, damaged, or no checkpoint of koser.
        """
        if path.suffix == ".safetensors":
            from koser.models.shared import read_shared  # which needs this module

            return read_shared(path.parent)
        values = _of_koser(load_tensors(path), path)
        return cls(
            system=values["system"],
            labels=tuple(values["labels"]),
            config=values["config"],
            origin=values["origin"],
            state=values["state"],
            temperature=float(values.get("temperature", 1.0)),  # not in files of koser 0.1
        )


def read_system_name(path: Path) -> str:
    """Name of the system that made a checkpoint, without reading its weights.

    Raises
    ------
    CheckpointError
        If the file is missing, unreadable, or no checkpoint of koser. Whether the weights are
        whole shows when they are read.
    """
    if path.suffix == ".safetensors":
        from koser.models.shared import read_config  # which needs this module

        return str(read_config(path.parent).get("system"))
    return str(_of_koser(load_tensors(path, is_mapped=True), path)["system"])


def _of_koser(values: dict[str, Any], path: Path) -> dict[str, Any]:
    if values.get("format") != FORMAT:
        raise CheckpointError(
            f"'{path}' is a PyTorch file, but not a checkpoint of koser (format {FORMAT}). "
            f"Give a run folder of `koser train`, or its best_model_*.pth."
        )
    return values


def trained_state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What training may change in `network`: its state without frozen parameters.

    Returns
    -------
    dict[str, torch.Tensor]
        Parameters that require gradients, and all persistent buffers, by name. They are
        the network's own tensors, not copies.
    """
    # A parameter that two modules share has two names.
    named = network.named_parameters(remove_duplicate=False)
    frozen = {name for name, parameter in named if not parameter.requires_grad}
    return {name: tensor for name, tensor in network.state_dict().items() if name not in frozen}


def load_trained_state(network: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Put what `trained_state` gave into a network of the same kind.

    Raises
    ------
    CheckpointError
        If names or shapes are not exactly those of the network's own `trained_state`.
    """
    expected = trained_state(network)
    problems = [f"no '{name}'" for name in expected if name not in state]
    problems += [f"unknown '{name}'" for name in state if name not in expected]
    problems += [
        f"'{name}' of shape {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if problems:
        raise CheckpointError(
            f"The weights are of another network: {len(problems)} of its "
            f"{len(expected)} tensors differ ({'; '.join(problems[:3])}). "
            f"Give the checkpoint that was trained with these settings."
        )
    network.load_state_dict(state, strict=False)


def save_tensors(values: Mapping[str, Any], path: Path) -> None:
    """Write tensors and plain values atomically.

    Raises
    ------
    CheckpointError
        If the file cannot be written.
    """
    try:
        # To an open file: torch writes a file's name into it, and equal runs must give equal bytes.
        with replacing(path) as partial, partial.open("wb") as file:
            torch.save(dict(values), file)
    except OSError as error:
        raise CheckpointError(f"Cannot write '{path}': {error.strerror}.") from error
    except RuntimeError as error:  # torch's own, of a disk that fills meanwhile
        raise CheckpointError(
            f"Cannot write '{path}': is the disk full? Free some space, and run the command again "
            f"(koser train with --resume)."
        ) from error


def load_tensors(path: Path, *, is_mapped: bool = False) -> dict[str, Any]:
    """Read tensors and plain values onto the CPU, refusing any code.

    Parameters
    ----------
    path : Path
        The file.
    is_mapped : bool
        Leave the tensors on the disk until they are used, and their checksums unchecked.

    Raises
    ------
    CheckpointError
        If the file is missing or is not one that `save_tensors` wrote.
    """
    if not path.is_file():
        raise CheckpointError(f"No checkpoint at '{path}'. Check the path, or train first.")
    return _load(path, path, is_mapped=is_mapped)


def read_tensors(content: bytes, path: Path) -> dict[str, Any]:
    """As `load_tensors`, of the content of the file `path`, which another process has read."""
    return _load(io.BytesIO(content), path)


def _load(file: Path | io.BytesIO, path: Path, *, is_mapped: bool = False) -> dict[str, Any]:
    try:
        # torch writes a checksum for every tensor and never looks at it.
        with zipfile.ZipFile(file) as archive:
            damaged = None if is_mapped else archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"the checksum of '{damaged}' is wrong")
        if isinstance(file, io.BytesIO):
            file.seek(0)
        values = torch.load(file, map_location="cpu", weights_only=True, mmap=is_mapped)
    except PermissionError as error:
        raise CheckpointError(f"No permission to read '{path}'. Ask its owner.") from error
    except _UNREADABLE as error:
        raise CheckpointError(
            f"'{path}' is no readable checkpoint: it is damaged, or of another program. Copy it "
            f"again; in the folder of an unfinished run, remove it and resume: that training is "
            f"done anew."
        ) from error
    if not isinstance(values, dict):
        raise CheckpointError(f"'{path}' holds a {type(values).__name__}, not a checkpoint.")
    return values


def find_checkpoint(model: Path) -> Path:
    """The checkpoint that `model` means: itself, or the newest one in a run or pulled folder.

    Raises
    ------
    CheckpointError
        If there is none.
    """
    if not model.is_dir():
        return model
    found = sorted(model.glob("best_model_*.pth"), key=lambda path: (path.stat().st_mtime, path))
    shared = model / "model.safetensors"
    if not found and shared.is_file():
        return shared
    if not found:
        raise CheckpointError(
            f"No best_model_*.pth in '{model}'. Give a folder of a finished `koser train` or "
            f"`koser regress`, or one that `koser pull` made; `koser doctor {quote(str(model))}` "
            f"says how an unfinished one goes on."
        )
    return found[-1]
