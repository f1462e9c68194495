"""What loading any pretrained model takes: where it is, and that its weights are its own."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar

import torch

from koser.errors import EncoderError

logger = logging.getLogger(__name__)

# What transformers raises for files that are missing, or not what they should be.
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)

LoadedT = TypeVar("LoadedT")


@dataclass(frozen=True)
class Source:
    """Where a pretrained model is looked for, and how a user says so.

    Attributes
    ----------
    name : str
        A hub id, or a folder.
    revision : str
        Of the hub.
    flag : str
        The option that names it, such as ``--encoder``.
    what : str
        What it is, such as ``encoder``.
    files : str
        What its folder holds, for a user whose folder does not.
    """

    name: str
    revision: str
    flag: str
    what: str
    files: str


def load_local_first(source: Source, load: Callable[[bool], LoadedT]) -> LoadedT:
    """Load from a folder or the hub's cache, and only then from the hub.

    Parameters
    ----------
    source : Source
        Which model.
    load : Callable
        Loads it; told whether it may use local files only.

    Raises
    ------
    EncoderError
        If `source` names a file, or whatever `load` raises.
    """
    path = Path(source.name)
    if path.is_file():
        raise EncoderError(
            f"'{path}' is a file. Give the folder of the model: {source.flag} FOLDER"
        )
    if path.is_dir():
        return load(True)
    # What was downloaded once is taken as it is: without a connection, asking the hub again
    # takes half a minute for each of the model's files.
    try:
        return load(True)
    except EncoderError:
        if is_offline():
            raise
    logger.info("asking the model hub for %s", source.name)
    return load(False)


def silence_libraries() -> None:
    """Let the libraries not tell of every attempt: what comes of them is told by koser."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]


def load_weights(
    loader: Any,  # a class of transformers, which it does not type
    source: Source,
    *,
    local_files_only: bool,
    attention: str,
    is_unused: Callable[[str], bool],
) -> Any:
    """The model with every weight from the file, in float32.

    Parameters
    ----------
    loader : type
        A model class of transformers.
    source : Source
        Which model.
    local_files_only : bool
        Whether the hub is left out.
    attention : str
        Implementation of attention.
    is_unused : Callable
        Whether the parameter of a name may be missing, because nothing uses it.

    Raises
    ------
    EncoderError
        If it cannot be loaded, or weights are missing.
    """
    from safetensors import SafetensorError

    try:
        model, info = loader.from_pretrained(
            source.name,
            dtype=torch.float32,
            attn_implementation=attention,
            output_loading_info=True,
            # Transformers looks for adapters on the hub whatever it is told for the rest.
            adapter_kwargs={"local_files_only": local_files_only},
            revision=source.revision,
            local_files_only=local_files_only,
        )
    except UNREADABLE as error:
        raise EncoderError(explain(source, error)) from error
    except (RuntimeError, SafetensorError, UnpicklingError) as error:
        raise EncoderError(
            f"The weights of '{source.name}' are damaged, or do not fit its config.json. "
            f"Download or save the model again."
        ) from error
    except MemoryError as error:
        raise EncoderError(
            f"There is not enough memory for '{source.name}'. Give a smaller {source.what}."
        ) from error
    missing = [key for key in sorted(info["missing_keys"]) if not is_unused(key)]
    if missing:
        raise EncoderError(
            f"'{source.name}' lacks {len(missing)} of the {source.what}'s weights (such as "
            f"{missing[0]}). They would be random: give a complete checkpoint."
        )
    return model


def explain(source: Source, error: Exception) -> str:
    """One line on why a model could not be had."""
    name = source.name
    if Path(name).is_dir():
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return (
            f"The folder '{name}' holds no model that can be loaded ({first.rstrip('.:')}). Give a "
            f"folder with {source.files}."
        )
    if name.count("/") > 1 or name.startswith((".", "~", "/")):
        return (
            f"There is no folder '{name}'. Check the path. If the {source.what} was moved, say "
            f"where it is: {source.flag} FOLDER"
        )
    if "gated" in str(error) or "401" in str(error) or "403" in str(error):
        return (
            f"The model hub refuses '{name}': it is gated, or private. Log in with `hf auth login`."
        )
    if "couldn't connect" in str(error) or "Connection" in str(error) or is_offline():
        return (
            f"The model hub cannot be reached and '{name}' is not in its cache. Check the "
            f"connection, or give a local folder ({source.flag} FOLDER)."
        )
    return (
        f"There is no model '{name}' (revision '{source.revision}') on the hub, nor a folder of "
        f"that name. Check the spelling."
    )


def is_offline() -> bool:
    """Whether the user has forbidden the hub's client to connect."""
    return any(
        os.environ.get(name, "").lower() in {"1", "true", "yes", "on"}
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def fingerprint_of(settings: str, weights: Mapping[str, torch.Tensor]) -> str:
    """A hash of weights and of the settings that decide how they are used: 16 hex digits."""
    digest = hashlib.sha256(settings.encode())
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()[:16]


def check_fingerprint(source: Source, *, wanted: str, found: str) -> None:
    """Refuse a model that is another one than `wanted`; empty wants any.

    Raises
    ------
    EncoderError
        If its hash is another.
    """
    if wanted not in ("", found):
        raise EncoderError(
            f"'{source.name}' is not the {source.what} that is wanted: its weights hash to "
            f"{found}, not {wanted}. Say with {source.flag} where the right one is."
        )
