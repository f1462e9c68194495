"""Load a pretrained speech encoder by hub id or from a folder, or say why not."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import Field

from koser.config import Config
from koser.errors import EncoderError
from koser.features.pretrained import (
    UNREADABLE,
    Source,
    check_fingerprint,
    explain,
    fingerprint_of,
    load_local_first,
    load_weights,
    silence_libraries,
)
from koser.features.speech.convolutional import ConvolutionalEncoder, WavLmEncoder
from koser.features.speech.encoder import SpeechEncoder
from koser.features.speech.whisper import HOP_LENGTH, N_FFT, WhisperEncoder

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
    silence_libraries()
    source = _source(options)
    return load_local_first(source, lambda local: _load(options, source, local_files_only=local))


def load_architecture(options: EncoderOptions) -> SpeechEncoder:
    """An encoder without its weights, on torch's meta device: what it would need, not what it does.

    Parameters
    ----------
    options : EncoderOptions
        Which one; of its files only ``config.json`` is read.

    Raises
    ------
    EncoderError
        If that cannot be had, or is of no speech encoder that koser knows.
    """
    silence_libraries()
    source = _source(options)
    return load_local_first(source, lambda local: _outline(source, options, local))


def _outline(source: Source, options: EncoderOptions, local: bool) -> SpeechEncoder:
    from transformers import AutoModel

    config = _read_config(source, {"revision": options.revision, "local_files_only": local})
    with torch.device("meta"):
        build: Any = AutoModel.from_config  # transformers does not type it
        model = build(config)
        if config.model_type == "whisper":
            # Their number decides nothing but their own size.
            return WhisperEncoder(model.encoder, np.zeros((N_FFT // 2 + 1, config.num_mel_bins)))
        return _CONVOLUTIONAL[config.model_type](model, normalize=True)


def _source(options: EncoderOptions) -> Source:
    files = "config.json, preprocessor_config.json and model.safetensors"
    return Source(options.name, options.revision, "--encoder", "encoder", files)


def _load(options: EncoderOptions, source: Source, *, local_files_only: bool) -> LoadedEncoder:
    name = options.name
    where = {"revision": options.revision, "local_files_only": local_files_only}
    config = _read_config(source, where)
    kind: str = config.model_type
    front_end = _load_front_end(options, where, config)
    logger.info("loading the encoder %s (%s)", name, kind)
    encoder = (
        _load_whisper(source, where, front_end)
        if kind == "whisper"
        else _load_convolutional(source, where, kind, front_end)
    )
    encoder.requires_grad_(False).eval()
    if encoder.max_seconds is not None and options.window_seconds > encoder.max_seconds:
        raise EncoderError(
            f"encoder.window_seconds = {options.window_seconds:g}: '{name}' takes at most "
            f"{encoder.max_seconds:g} s. Lower it."
        )
    found = _fingerprint(encoder, config, front_end)
    check_fingerprint(source, wanted=options.fingerprint, found=found)
    return LoadedEncoder(encoder, options.model_copy(update={"fingerprint": found}), kind)


# Any: each architecture has its own class
def _read_config(source: Source, where: dict[str, Any]) -> Any:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source.name, **where)
    except (*UNREADABLE, StrictDataclassError) as error:
        raise EncoderError(explain(source, error)) from error
    if config.model_type not in SUPPORTED:
        raise EncoderError(
            f"'{source.name}' is no speech encoder that koser knows: its config.json says "
            f"'{config.model_type}'. Give one of: {', '.join(SUPPORTED)}."
        )
    return config


# Any: a feature extractor of transformers
def _load_front_end(options: EncoderOptions, where: dict[str, Any], config: Any) -> Any:
    from transformers import AutoFeatureExtractor

    loader: Any = AutoFeatureExtractor  # transformers does not type it
    try:
        front_end = loader.from_pretrained(options.name, **where)
    except UNREADABLE as error:
        raise EncoderError(
            f"'{options.name}' has no readable preprocessor_config.json, which says how it wants "
            f"its sound. Save the model's feature extractor beside it."
        ) from error
    mismatch = _front_end_mismatch(front_end, config)
    if mismatch:
        raise EncoderError(
            f"The preprocessor_config.json of '{options.name}' is of another kind of model "
            f"({mismatch}) than its config.json ({config.model_type}). Save the model's own "
            f"feature extractor beside it."
        )
    if front_end.sampling_rate != 16_000:
        raise EncoderError(
            f"'{options.name}' wants sound at {front_end.sampling_rate} Hz; koser's is at 16000. "
            f"Give another encoder."
        )
    return front_end


def _front_end_mismatch(front_end: Any, config: Any) -> str:
    """What shows that a front-end is of another model; empty if nothing does."""
    kind = type(front_end).__name__
    is_whisper = config.model_type == "whisper"
    if not hasattr(front_end, "mel_filters" if is_whisper else "do_normalize"):
        return kind
    if not is_whisper:
        return ""
    # Whisper's spectrum is computed here, not by the front-end, with what all Whispers have.
    for name, wanted in (("n_fft", N_FFT), ("hop_length", HOP_LENGTH)):
        found = getattr(front_end, name, None)
        if found != wanted:
            return f"{kind} with {name} = {found}, not {wanted}"
    n_bins, n_mels = front_end.mel_filters.shape
    if (n_bins, n_mels) != (N_FFT // 2 + 1, config.num_mel_bins):
        return f"{kind} with {n_mels} Mel bands of {n_bins} bins, not {config.num_mel_bins}"
    return ""


def _load_convolutional(
    source: Source, where: dict[str, Any], kind: str, front_end: Any
) -> SpeechEncoder:
    from transformers import AutoModel

    # WavLM computes its attention itself and knows no other implementation.
    attention = "eager" if kind == "wavlm" else "sdpa"
    model = _load_weights(AutoModel, source, where, attention)
    return _CONVOLUTIONAL[kind](model, normalize=bool(front_end.do_normalize))


def _load_whisper(source: Source, where: dict[str, Any], front_end: Any) -> SpeechEncoder:
    from transformers import WhisperModel

    # The decoder is loaded with it and let go: it has no place of its own in the file.
    model = _load_weights(WhisperModel, source, where, "sdpa")
    return WhisperEncoder(model.encoder, front_end.mel_filters)


def _load_weights(loader: Any, source: Source, where: dict[str, Any], attention: str) -> Any:
    return load_weights(
        loader,
        source,
        local_files_only=where["local_files_only"],
        attention=attention,
        is_unused=lambda key: key.endswith(_UNUSED) or key.startswith("decoder"),
    )


def _fingerprint(encoder: SpeechEncoder, config: Any, front_end: Any) -> str:
    settings = json.dumps([getattr(config, name, None) for name in _SETTINGS])
    return fingerprint_of(
        f"{config.model_type} {getattr(front_end, 'do_normalize', None)} {settings}",
        encoder.state_dict(),
    )
