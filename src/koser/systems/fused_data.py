"""What systems of sound and text train on: sound, transcripts, and their vectors.

One large model is in memory at a time: an encoder, if there is one, hears everything and is
freed, then Whisper, then the text model reads everything and is freed, then networks are trained.
"""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from koser.config import Config
from koser.data.manifest import Manifest
from koser.engines.engine import Engine
from koser.engines.local import SERIAL
from koser.evaluation.transcripts import character_error_rate
from koser.features.extraction import Progress, clips_of
from koser.features.residence import use_and_free
from koser.features.text.corruption import corrupt
from koser.features.text.embedding import StoredTexts, embed_texts, text_keys
from koser.features.text.encoder import (
    LoadedTextEncoder,
    TextExtractor,
    TextOptions,
    load_text_encoder,
)
from koser.features.text.transcription import (
    Spoken,
    Transcription,
    spoken_languages,
    transcribe_clips,
)
from koser.features.text.whisper import WhisperOptions
from koser.models.fusion import FusionOptions
from koser.systems.system import target_distributions
from koser.systems.variants import StoredVariants
from koser.training.corpora import Origins
from koser.training.devices import choose_device
from koser.training.options import TrainedConfig, TrainOptions
from koser.training.pairs import Modalities, PairTable, WithheldOptions

logger = logging.getLogger(__name__)

TRANSCRIPTIONS = "transcriptions.json"


class ErrorOptions(Config):
    """Simulated recognition errors: texts that training reads in place of the true one."""

    rate: float = Field(0.1, ge=0, le=1)  # expected errors per letter
    variants: int = Field(2, ge=0)  # texts with errors, beside the one without


class FusedTrain(TrainOptions):
    """How the fusion learns."""

    epochs: int = Field(100, gt=0)
    # None is saved: epochs cost a fraction of a second.
    patience: int = Field(100, gt=0)
    learning_rate: float = Field(1e-3, gt=0)
    warmup: float = Field(0.1, ge=0, lt=1)
    batch_size: int = Field(32, gt=0)  # utterances


class FusedConfig(TrainedConfig):
    """All settings but those of sound, which each system adds."""

    whisper: WhisperOptions = WhisperOptions()
    text: TextOptions = TextOptions()
    fusion: FusionOptions = FusionOptions()
    # What reaches the network; the others are ablations, trained beside every result.
    modalities: Modalities = "both"
    # "manifest": what the corpus says was spoken, to see what recognition costs.
    text_source: Literal["transcript", "manifest"] = "transcript"
    withheld: WithheldOptions = WithheldOptions()
    errors: ErrorOptions = ErrorOptions()
    # Speeds at which the train part is heard beside 1.0.
    speeds: tuple[float, ...] = (0.9, 1.1)
    train: FusedTrain = FusedTrain()


@dataclass(frozen=True)
class StoredSound:
    """Where a manifest's sound lies, and what it is.

    Attributes
    ----------
    variants : StoredVariants
        One variant per speed, 1.0 first.
    shape : tuple[int, ...]
        Of what a fusion takes: ``(n_values,)``, or ``(n_states, width)`` of an encoder.
    states : tuple[int, ...]
        The states that are taken of an encoder; none without one.
    models : dict[str, Config]
        Settings that name a pretrained model, with its fingerprint.
    facts : dict
        What a report should say.
    """

    variants: StoredVariants
    shape: tuple[int, ...]
    states: tuple[int, ...] = ()
    models: dict[str, Config] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FusedData:
    """Where a manifest's sound and texts lie.

    Attributes
    ----------
    sound : StoredSound
        What is heard.
    texts : StoredTexts
        The texts' vectors or tokens.
    transcript_keys : np.ndarray [shape=(n_variants, n_utterances), dtype=S16]
        What was recognised, first without simulated errors; blank where there is none.
    manifest_keys : np.ndarray [shape=(n_variants, n_utterances), dtype=S16]
        The same of the corpus's own text; no rows where the manifest has none.
    targets : np.ndarray [shape=(n_utterances, n_labels)]
        float32 target distributions.
    n_text : int
        Values of a vector or a token of text.
    models : dict[str, Config]
        The settings of every pretrained model, with the fingerprints and the language that
        were used.
    facts : dict
        What a report should say.
    transcriptions : tuple[str | None, ...]
        What can be believed of each utterance; None where nothing can.
    origins : Origins
        Which corpus each utterance is of.
    """

    sound: StoredSound
    texts: StoredTexts
    transcript_keys: np.ndarray
    manifest_keys: np.ndarray
    targets: np.ndarray
    n_text: int
    models: dict[str, Config]
    facts: dict[str, Any]
    transcriptions: tuple[str | None, ...]
    origins: Origins

    def table(self, config: FusedConfig) -> PairTable:
        """Open the stores, for what `config` lets through."""
        is_own = config.text_source == "manifest"
        return PairTable(
            audio_stores=self.sound.variants.open(),
            audio_keys=self.sound.variants.keys,
            text_store=self.texts.open(),
            text_keys=self.manifest_keys if is_own else self.transcript_keys,
            targets=self.targets,
            sizes=(math.prod(self.sound.shape), self.n_text),
            has_sequences=config.fusion.has_sequences,
            modalities=config.modalities,
            withheld=config.withheld,
            audio_states=self.sound.states,
        )


def extract_fused(
    manifest: Manifest,
    config: FusedConfig,
    sound: StoredSound,
    *,
    train_rows: np.ndarray,
    store_root: Path,
    engine: Engine,
    progress: Progress | None,
) -> FusedData:
    """Transcribe and embed; the other parameters are those of `System.extract`.

    Parameters
    ----------
    sound : StoredSound
        What was extracted of the manifest's sound.
    """
    transcription = transcribe_manifest(
        manifest, config.whisper, store_root=store_root, engine=engine, progress=progress
    )
    own: list[str | None] = [text or None for text in manifest.table["text"].to_list()]
    sources = [transcription.texts, *([own] if any(own) else [])]
    variants = [_with_errors(texts, train_rows, config.errors) for texts in sources]
    everything = [text for source in variants for texts in source for text in texts]

    def embed(loaded: LoadedTextEncoder) -> tuple[StoredTexts, TextOptions, int]:
        device = choose_device(config.train.device).type
        extractor = TextExtractor(loaded, keep=config.fusion.takes, device=device)
        stored = embed_texts(everything, extractor, store_root, progress=progress)
        return stored, loaded.options, loaded.width

    stored, text_options, width = use_and_free(
        f"text model {config.text.name}", lambda: load_text_encoder(config.text), embed
    )
    keys = [np.stack([text_keys(texts) for texts in source]) for source in variants]
    return FusedData(
        sound=sound,
        texts=stored,
        transcript_keys=keys[0],
        manifest_keys=keys[1] if any(own) else np.zeros((0, len(manifest)), keys[0].dtype),
        targets=target_distributions(manifest, config.train.target),
        n_text=width,
        models={
            **sound.models,
            "whisper": _pinned(config.whisper, transcription, manifest),
            "text": text_options,
        },
        facts={**sound.facts, **_facts(config, transcription, text_options, own)},
        transcriptions=tuple(transcription.texts),
        origins=Origins.of(manifest),
    )


def transcribe_manifest(
    manifest: Manifest,
    options: WhisperOptions,
    *,
    store_root: Path,
    engine: Engine = SERIAL,
    progress: Progress | None = None,
) -> Transcription:
    """The transcripts of a manifest's utterances, each in its own language."""
    table = manifest.table
    spoken = Spoken(
        clips_of(table),
        table["duration"].to_list(),
        spoken_languages(options, table["language"].to_list()),
    )
    return transcribe_clips(spoken, options, store_root, engine=engine, progress=progress)


def transcriptions_json(ids: Sequence[str], texts: Sequence[str | None]) -> bytes:
    """``{id: text}`` as a file holds it, Korean readable; null where nothing can be believed."""
    values = dict(zip(ids, texts, strict=True))
    return f"{json.dumps(values, ensure_ascii=False, indent=1)}\n".encode()


def _with_errors(
    texts: Sequence[str | None], train_rows: np.ndarray, options: ErrorOptions
) -> list[list[str | None]]:
    """The texts, then those of the train part as they might have been heard."""
    versions = [list(texts)]
    for variant in range(options.variants):
        spoiled: list[str | None] = [None] * len(texts)
        for row in train_rows.tolist():
            text = texts[row]
            if text is not None:
                spoiled[row] = corrupt(text, options.rate, variant=variant).strip() or None
        versions.append(spoiled)
    return versions


def _pinned(
    options: WhisperOptions, transcription: Transcription, manifest: Manifest
) -> WhisperOptions:
    """The Whisper that a trained system transcribes with; where it runs is left open."""
    languages = Counter(spoken_languages(options, manifest.table["language"].to_list()))
    ((language, n_first),) = languages.most_common(1)
    if n_first < len(manifest):
        logger.warning(
            "the manifest has several languages (%s); the trained model will transcribe in '%s'",
            ", ".join(sorted(languages)),
            language,
        )
    pinned = {"fingerprint": transcription.options.fingerprint, "language": language}
    return options.model_copy(update=pinned)


def _facts(
    config: FusedConfig,
    transcription: Transcription,
    text: TextOptions,
    own: Sequence[str | None],
) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "whisper": config.whisper.name,
        "whisper fingerprint": transcription.options.fingerprint,
        "whisper context": config.whisper.context,
        "transcripts": transcription.counts(),
        "text model": config.text.name,
        "text fingerprint": text.fingerprint,
        "text pooling": config.text.pooling,
        "text source": config.text_source,
        "fusion": config.fusion.kind,
    }
    known = [
        (said, heard or "")
        for said, heard in zip(own, transcription.texts, strict=True)
        if said is not None and any(letter.isalnum() for letter in said)
    ]
    if known:
        said, heard = zip(*known, strict=True)
        facts["character error rate"] = round(character_error_rate(said, heard), 4)
        facts["character error rate of"] = f"{len(known)} utterances with the corpus's own text"
    return facts
