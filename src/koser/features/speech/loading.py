"""Load a pretrained speech encoder by hub id or from a folder, or say why not."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from pydantic import Field

from koser.config import Config
from koser.errors import EncoderError
from koser.features.speech.convolutional import ConvolutionalEncoder, WavLmEncoder
from koser.features.speech.encoder import SpeechEncoder
from koser.features.speech.whisper import WhisperEncoder

logger = logging.getLogger(__name__)

_CONVOLUTIONAL = {
    "wav2vec2": ConvolutionalEncoder,
    "hubert": ConvolutionalEncoder,
    "data2vec-audio": ConvolutionalEncoder,
    "unispeech": ConvolutionalEncoder,
    "unispeech-sat": ConvolutionalEncoder,
    "wavlm": WavLmEncoder,
}
SUPPORTED = (*_CONVOLUTIONAL, "whisper")
# Parameters that only pretraining and its masking use.
_UNUSED = ("masked_spec_embed",)
# What decides how weights are used, and cannot be told from their names and shapes.
_SETTINGS = (
    "num_attention_heads",
    "encoder_attention_heads",
    "hidden_act",
    "activation_function",
    "feat_extract_activation",
    "layer_norm_eps",
    "conv_stride",
    "max_bucket_distance",
)

# What transformers raises for files that are missing, or not what they should be.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)


class EncoderOptions(Config):
    """Which encoder, and how much it hears at once."""

    # A hub id, or a folder of `save_pretrained`. XLS-R and others of the same families do.
    name: str = "facebook/wav2vec2-base-960h"
    revision: str = "main"  # of the hub; a commit's hash pins it for good
    # Longer utterances are heard in windows of equal length, up to this many seconds.
    window_seconds: float = Field(20.0, gt=0.5)
    # The hash of weights and settings that it must have; empty for any. A trained model has it.
    fingerprint: str = ""


@dataclass(frozen=True, eq=False)
class LoadedEncoder:
    """An encoder, and what it is.

    Attributes
    ----------
    encoder : SpeechEncoder
        In float32, on the CPU, in evaluation mode, without gradients.
    options : EncoderOptions
        What was asked for, with its fingerprint.
    kind : str
        The architecture, as its configuration names it.
    """

    encoder: SpeechEncoder
    options: EncoderOptions
    kind: str

    def __reduce__(self) -> tuple[object, ...]:
        # A worker process loads it for itself: quicker than sending it, and checked.
        return load_encoder, (self.options,)

    def describe(self) -> dict[str, object]:
        """What its hidden states depend on: where it was loaded from does not count."""
        return {
            "kind": self.kind,
            "fingerprint": self.options.fingerprint,
            "window_seconds": self.options.window_seconds,
        }


def load_encoder(options: EncoderOptions) -> LoadedEncoder:
    """Load an encoder with its own weights, never with random ones.

    Parameters
    ----------
    options : EncoderOptions
        Which one.

    Raises
    ------
    EncoderError
        If the hub cannot be reached, `options.name` is no model or not one of speech, its
        weights are incomplete, or they are not those of `options.fingerprint`.
    """
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    # It tells of every attempt to reach the hub; what comes of them is told here.
    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    path = Path(options.name)
    if path.is_file():
        raise EncoderError(f"'{path}' is a file. Give the folder of the model: --encoder FOLDER")
    if path.is_dir():
        return _load(options, local_files_only=True)
    # What was downloaded once is taken as it is: without a connection, asking the hub again
    # takes half a minute for each of the model's files.
    try:
        return _load(options, local_files_only=True)
    except EncoderError:
        if _is_offline():
            raise
    logger.info("asking the model hub for %s", options.name)
    return _load(options, local_files_only=False)


def _load(options: EncoderOptions, *, local_files_only: bool) -> LoadedEncoder:
    name = options.name
    where = {"revision": options.revision, "local_files_only": local_files_only}
    config = _read_config(options, where)
    kind: str = config.model_type
    front_end = _load_front_end(options, where, kind)
    logger.info("loading the encoder %s (%s)", name, kind)
    encoder = (
        _load_whisper(options, where, front_end)
        if kind == "whisper"
        else _load_convolutional(options, where, kind, front_end)
    )
    encoder.requires_grad_(False).eval()
    if encoder.max_seconds is not None and options.window_seconds > encoder.max_seconds:
        raise EncoderError(
            f"encoder.window_seconds = {options.window_seconds:g}: '{name}' takes at most "
            f"{encoder.max_seconds:g} s. Lower it."
        )
    found = _fingerprint(encoder, config, front_end)
    if options.fingerprint not in ("", found):
        raise EncoderError(
            f"'{name}' is not the encoder that is wanted: its weights hash to {found}, not "
            f"{options.fingerprint}. Say with --encoder where the right one is."
        )
    return LoadedEncoder(encoder, options.model_copy(update={"fingerprint": found}), kind)


# Any: each architecture has its own class
def _read_config(options: EncoderOptions, where: dict[str, Any]) -> Any:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(options.name, **where)
    except (*_UNREADABLE, StrictDataclassError) as error:
        raise EncoderError(_explain(options, error)) from error
    if config.model_type not in SUPPORTED:
        raise EncoderError(
            f"'{options.name}' is no speech encoder that koser knows: its config.json says "
            f"'{config.model_type}'. Give one of: {', '.join(SUPPORTED)}."
        )
    return config


# Any: a feature extractor of transformers
def _load_front_end(options: EncoderOptions, where: dict[str, Any], kind: str) -> Any:
    from transformers import AutoFeatureExtractor

    loader: Any = AutoFeatureExtractor  # transformers does not type it
    try:
        front_end = loader.from_pretrained(options.name, **where)
    except _UNREADABLE as error:
        raise EncoderError(
            f"'{options.name}' has no readable preprocessor_config.json, which says how it wants "
            f"its sound. Save the model's feature extractor beside it."
        ) from error
    if not hasattr(front_end, "mel_filters" if kind == "whisper" else "do_normalize"):
        raise EncoderError(
            f"The preprocessor_config.json of '{options.name}' is of another kind of model "
            f"({type(front_end).__name__}) than its config.json ({kind}). Save the model's own "
            f"feature extractor beside it."
        )
    if front_end.sampling_rate != 16_000:
        raise EncoderError(
            f"'{options.name}' wants sound at {front_end.sampling_rate} Hz; koser's is at 16000. "
            f"Give another encoder."
        )
    return front_end


def _load_convolutional(
    options: EncoderOptions, where: dict[str, Any], kind: str, front_end: Any
) -> SpeechEncoder:
    from transformers import AutoModel

    # WavLM computes its attention itself and knows no other implementation.
    attention = "eager" if kind == "wavlm" else "sdpa"
    model = _load_weights(AutoModel, options, where, attention)
    return _CONVOLUTIONAL[kind](model, normalize=bool(front_end.do_normalize))


def _load_whisper(options: EncoderOptions, where: dict[str, Any], front_end: Any) -> SpeechEncoder:
    from transformers import WhisperModel

    # The decoder is loaded with it and let go: it has no place of its own in the file.
    model = _load_weights(WhisperModel, options, where, "sdpa")
    return WhisperEncoder(model.encoder, front_end.mel_filters)


def _load_weights(
    loader: Any, options: EncoderOptions, where: dict[str, Any], attention: str
) -> Any:
    """The model with every weight from the file."""
    from safetensors import SafetensorError

    try:
        model, info = loader.from_pretrained(
            options.name,
            dtype=torch.float32,
            attn_implementation=attention,
            output_loading_info=True,
            # Transformers looks for adapters on the hub whatever it is told for the rest.
            adapter_kwargs={"local_files_only": where["local_files_only"]},
            **where,
        )
    except _UNREADABLE as error:
        raise EncoderError(_explain(options, error)) from error
    except (RuntimeError, SafetensorError, UnpicklingError) as error:
        raise EncoderError(
            f"The weights of '{options.name}' are damaged, or do not fit its config.json. "
            f"Download or save the model again."
        ) from error
    except MemoryError as error:
        raise EncoderError(
            f"There is not enough memory for '{options.name}'. Give a smaller encoder."
        ) from error
    missing = [
        key
        for key in sorted(info["missing_keys"])
        if not key.endswith(_UNUSED) and not key.startswith("decoder")
    ]
    if missing:
        raise EncoderError(
            f"'{options.name}' lacks {len(missing)} of the encoder's weights (such as "
            f"{missing[0]}). They would be random: give a complete checkpoint."
        )
    return model


def _explain(options: EncoderOptions, error: Exception) -> str:
    name = options.name
    if Path(name).is_dir():
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return (
            f"The folder '{name}' holds no model that can be loaded ({first.rstrip('.:')}). Give a "
            f"folder with config.json, preprocessor_config.json and model.safetensors."
        )
    if name.count("/") > 1 or name.startswith((".", "~", "/")):
        return (
            f"There is no folder '{name}'. Check the path. If the encoder was moved, say where it "
            f"is: --encoder FOLDER"
        )
    if "gated" in str(error) or "401" in str(error) or "403" in str(error):
        return (
            f"The model hub refuses '{name}': it is gated, or private. Log in with `hf auth login`."
        )
    if "couldn't connect" in str(error) or "Connection" in str(error) or _is_offline():
        return (
            f"The model hub cannot be reached and '{name}' is not in its cache. Check the "
            f"connection, or give a local folder (--encoder FOLDER)."
        )
    return (
        f"There is no model '{name}' (revision '{options.revision}') on the hub, nor a folder of "
        f"that name. Check the spelling."
    )


def _is_offline() -> bool:
    return any(
        os.environ.get(name, "").lower() in {"1", "true", "yes", "on"}
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def _fingerprint(encoder: SpeechEncoder, config: Any, front_end: Any) -> str:
    settings = json.dumps([getattr(config, name, None) for name in _SETTINGS])
    digest = hashlib.sha256(
        f"{config.model_type} {getattr(front_end, 'do_normalize', None)} {settings}".encode()
    )
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()[:16]
