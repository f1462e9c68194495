"""A frozen BERT-like model as a front-end: texts to vectors, or to the states of their tokens.

What counts is the last hidden state: that of the first token ([CLS]), or the mean over
all tokens. The pooler that some checkpoints have, and others lack, is dropped when the
model is loaded: it plays no part, so it cannot be a random one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from koser.config import Config
from koser.errors import EncoderError
from koser.features.batching import batches_by_length
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
from koser.features.threads import torch_threads

logger = logging.getLogger(__name__)

SUPPORTED = (
    *("bert", "roberta", "xlm-roberta", "electra", "distilbert", "camembert", "albert"),
    *("deberta", "deberta-v2", "mpnet", "modernbert"),
)
# What decides how weights are used, and cannot be told from their names and shapes.
_SETTINGS = (
    *("num_attention_heads", "n_heads", "hidden_act", "activation", "layer_norm_eps"),
    *("position_embedding_type", "pad_token_id", "embedding_size", "num_hidden_layers"),
)
_FILES = "config.json, model.safetensors and tokenizer.json"
# Tokens in one batch, padding included.
_CPU_BATCH_TOKENS = 1024
_GPU_BATCH_TOKENS = 32_768


class TextOptions(Config):
    """Which text model, and what is taken of it."""

    name: str = "kykim/bert-kor-base"  # a hub id, or a folder of `save_pretrained`
    revision: str = "main"  # of the hub; a commit's hash pins it for good
    pooling: Literal["cls", "mean"] = "cls"  # sentence encoders such as e5 are trained for "mean"
    prefix: str = ""  # put before every text; e5 wants "query: "
    max_tokens: int = Field(256, gt=2)  # a longer text is cut, with a note
    # The hash of weights, vocabulary and settings that it must have; empty for any.
    fingerprint: str = ""


@dataclass(frozen=True, eq=False)
class LoadedTextEncoder:
    """A text model, and what it is.

    Attributes
    ----------
    model : torch.nn.Module
        In float32, on the CPU, in evaluation mode, without gradients and without pooler.
    tokenizer : object
        Its own.
    options : TextOptions
        What was asked for, with its fingerprint.
    kind : str
        The architecture, as its configuration names it.
    """

    model: Any = field(repr=False)  # each architecture has its own class
    tokenizer: Any = field(repr=False)
    options: TextOptions
    kind: str

    @property
    def width(self) -> int:
        """Size of a hidden state."""
        width: int = self.model.config.hidden_size
        return width

    def describe(self) -> dict[str, object]:
        """What its vectors depend on: where it was loaded from does not count."""
        return {
            "kind": self.kind,
            "fingerprint": self.options.fingerprint,
            "prefix": self.options.prefix,
            "max_tokens": self.options.max_tokens,
        }


def load_text_encoder(options: TextOptions) -> LoadedTextEncoder:
    """Load a text model with its own weights, never with random ones.

    Parameters
    ----------
    options : TextOptions
        Which one.

    Raises
    ------
    EncoderError
        If it cannot be had, is none that is known, its weights are incomplete, or it is not
        the one of `options.fingerprint`.
    """
    silence_libraries()
    source = Source(options.name, options.revision, "--text-model", "text model", _FILES)
    return load_local_first(source, lambda local: _load(options, source, local_files_only=local))


def _load(options: TextOptions, source: Source, *, local_files_only: bool) -> LoadedTextEncoder:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoModel

    where = {"revision": options.revision, "local_files_only": local_files_only}
    try:
        config = AutoConfig.from_pretrained(options.name, **where)
    except (*UNREADABLE, StrictDataclassError) as error:
        raise EncoderError(explain(source, error)) from error
    if config.model_type not in SUPPORTED:
        raise EncoderError(
            f"'{options.name}' is no text model that koser knows: its config.json says "
            f"'{config.model_type}'. Give one of: {', '.join(SUPPORTED)}."
        )
    tokenizer = _load_tokenizer(options.name, where)
    logger.info("loading the text model %s (%s)", options.name, config.model_type)
    model = load_weights(
        AutoModel,
        source,
        local_files_only=local_files_only,
        attention="eager",  # every architecture has it
        is_unused=lambda key: key.startswith("pooler."),
    )
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    model.requires_grad_(False).eval()
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise EncoderError(
            f"The tokenizer of '{options.name}' has {len(tokenizer)} tokens, its model "
            f"{model.get_input_embeddings().num_embeddings}: it is of another model."
        )
    settings = json.dumps([getattr(config, name, None) for name in _SETTINGS])
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()))
    found = fingerprint_of(f"{config.model_type} {settings} {vocabulary}", model.state_dict())
    check_fingerprint(source, wanted=options.fingerprint, found=found)
    # Positions after the last one that was learnt do not exist.
    longest = min(options.max_tokens, _positions(config))
    chosen = options.model_copy(update={"fingerprint": found, "max_tokens": longest})
    return LoadedTextEncoder(model, tokenizer, chosen, config.model_type)


# Any: each architecture has its own class
def _load_tokenizer(name: str, where: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer

    problem: Exception | None = None
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **where)
        # Where its files are missing, transformers makes one that knows no word.
        if not set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
            return tokenizer
    except Exception as error:  # tokenizers raises nothing more special
        problem = error
    raise EncoderError(
        f"'{name}' has no readable tokenizer. Save the model's own beside it (tokenizer.json)."
    ) from problem


def _positions(config: Any) -> int:
    positions = int(config.max_position_embeddings)
    # RoBERTa's first positions are those of padding.
    is_offset = config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet")
    return positions - 2 if is_offset else positions


class TextExtractor:
    """Texts to what is kept of them, each the same as if it were alone.

    Parameters
    ----------
    loaded : LoadedTextEncoder
        The model.
    keep : {'pooled', 'tokens'}
        One vector of a text, or the states of all its tokens.
    device : str
        Where it computes.
    """

    def __init__(
        self, loaded: LoadedTextEncoder, *, keep: Literal["pooled", "tokens"], device: str = "cpu"
    ) -> None:
        self._loaded = loaded
        self._keep = keep
        self._device = torch.device(device)
        # States of tokens are many times as large as one vector.
        self.dtype = "float32" if keep == "pooled" else "float16"

    @property
    def model(self) -> torch.nn.Module:
        """The text model's network."""
        network: torch.nn.Module = self._loaded.model
        return network

    def describe(self) -> dict[str, object]:
        """All that the result depends on beside the text."""
        kept = self._loaded.options.pooling if self._keep == "pooled" else "tokens"
        return {"extractor": "text", "kept": kept, **self._loaded.describe()}

    def extract(self, texts: Sequence[str]) -> list[np.ndarray]:
        """What is kept of each text.

        Parameters
        ----------
        texts : Sequence[str]
            Not empty ones.

        Returns
        -------
        list[np.ndarray] [each shape=(width,) or (width, n_tokens)]
            In the order of `texts`.
        """
        options, tokenizer = self._loaded.options, self._loaded.tokenizer
        ids = tokenizer([options.prefix + text for text in texts], truncation=False)["input_ids"]
        n_long = sum(len(each) > options.max_tokens for each in ids)
        if n_long:
            logger.warning(
                "%d texts are longer than %d tokens and are cut (text.max_tokens)",
                n_long,
                options.max_tokens,
            )
        encoded = tokenizer(
            [options.prefix + text for text in texts],
            truncation=True,
            max_length=options.max_tokens,
        )["input_ids"]
        lengths = [len(each) for each in encoded]
        limit = _GPU_BATCH_TOKENS if self._device.type == "cuda" else _CPU_BATCH_TOKENS
        found: dict[int, np.ndarray] = {}
        for batch in batches_by_length(lengths, limit):
            rows = self._compute([encoded[place] for place in batch.tolist()])
            found.update(zip(batch.tolist(), rows, strict=True))
        return [found[place] for place in range(len(texts))]

    def _compute(self, encoded: Sequence[Sequence[int]]) -> list[np.ndarray]:
        n_tokens = [len(each) for each in encoded]
        ids = torch.full((len(encoded), max(n_tokens)), self._loaded.tokenizer.pad_token_id)
        for row, each in zip(ids, encoded, strict=True):
            row[: len(each)] = torch.tensor(each)
        mask = torch.arange(max(n_tokens)) < torch.tensor(n_tokens)[:, None]
        model = self._loaded.model.to(self._device)
        with torch.inference_mode(), torch_threads(1):
            states = (
                model(input_ids=ids.to(self._device), attention_mask=mask.long().to(self._device))
                .last_hidden_state.float()
                .cpu()
            )
        kept: list[np.ndarray] = []
        for row, n in zip(states, n_tokens, strict=True):
            if self._keep == "tokens":
                kept.append(row[:n].T.numpy().astype(self.dtype))
            elif self._loaded.options.pooling == "cls":
                kept.append(row[0].numpy())
            else:
                kept.append(row[:n].mean(0).numpy())
        return kept
