"""What systems of sound and text have in common: all but the sound.

Sound and the vectors of a Whisper transcript meet in a fusion, either of which may be missing.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from koser.config import Config, build_config
from koser.data.manifest import Manifest
from koser.engines.engine import Engine
from koser.engines.local import SERIAL
from koser.errors import ConfigError
from koser.features.extraction import Progress
from koser.features.text.encoder import TextExtractor, load_text_encoder
from koser.features.text.kept import KeptTranscriber
from koser.features.text.transcriber import Transcriber
from koser.features.text.transcription import DEFAULT_LANGUAGE
from koser.features.text.whisper import find_whisper
from koser.features.threads import torch_threads
from koser.files import write_atomically
from koser.models.checkpoint import Checkpoint, load_trained_state, trained_state
from koser.models.fusion import FusionNetwork, make_fusion
from koser.systems.fused_data import (
    TRANSCRIPTIONS,
    FusedConfig,
    FusedData,
    StoredSound,
    extract_fused,
    transcriptions_json,
)
from koser.systems.speech import on_this_machine
from koser.systems.system import ParameterCount, Part, System
from koser.training.batches import TrainingBatches, iter_plain_batches
from koser.training.corpora import balance_cells
from koser.training.devices import choose_device, compute_logits
from koser.training.loop import fit
from koser.training.pairs import Pair, PairTable, collate_pairs
from koser.training.progress import Fit, OnEpoch
from koser.training.ranks import ALONE, Ranks
from koser.training.scoring import predict


@dataclass(frozen=True, eq=False)
class _Readers:
    """The models that prediction from sound needs, all of them at once.

    Training holds one at a time; here each call would have to load Whisper again. Together
    they fit 8 GB: Whisper-medium takes 1.5 GB in half precision, a BERT 0.4.
    """

    transcriber: Transcriber | KeptTranscriber
    text: TextExtractor


class FusedSystem(System):
    """Sound + Whisper + a text model; a child says what is heard of sound."""

    is_shareable = False
    config: FusedConfig

    def __init__(self, labels: Sequence[str], config: Config) -> None:
        super().__init__(labels, config)
        if self.config.fusion.width % self.config.fusion.n_heads:
            raise ConfigError(
                f"fusion.width = {self.config.fusion.width} cannot be shared by "
                f"fusion.n_heads = {self.config.fusion.n_heads} heads. Give a multiple."
            )
        self._network: FusionNetwork | None = None
        self._sound_shape: tuple[int, ...] = ()
        self._n_text = 0
        self._readers: _Readers | None = None
        self._transcripts_in: Path | None = None

    def count_parameters(self) -> ParameterCount:
        """How large fusion, encoder and text model are; Whisper comes converted, uncounted."""
        hearing = () if self.config.modalities == "text" else self._hearing_models()
        if self.config.modalities == "audio":
            return ParameterCount.of(self._trained(), *hearing)
        readers = self._load_readers()
        beside = f"Whisper {Path(self.config.whisper.name).name}"
        return ParameterCount.of(self._trained(), *hearing, readers.text.model, beside=beside)

    @classmethod
    def extract(
        cls,
        manifest: Manifest,
        config: FusedConfig,
        *,
        train_rows: np.ndarray,
        store_root: Path,
        engine: Engine = SERIAL,
        progress: Progress | None = None,
        ranks: Ranks = ALONE,
    ) -> FusedData:
        """Extract every sound, transcribe every utterance, and read every text."""
        if config.text_source == "manifest" and not any(manifest.table["text"].to_list()):
            raise ConfigError(
                "text_source = manifest: this manifest has no text. Leave it at 'transcript'."
            )
        how: dict[str, Any] = {
            "train_rows": train_rows,
            "store_root": store_root,
            "engine": engine,
            "progress": progress,
        }
        sound = cls._extract_sound(manifest, config, **how)
        return extract_fused(manifest, config, sound, **how)

    @classmethod
    @abstractmethod
    def _extract_sound(
        cls,
        manifest: Manifest,
        config: Any,  # an instance of `config_class`
        *,
        train_rows: np.ndarray,
        store_root: Path,
        engine: Engine,
        progress: Progress | None,
    ) -> StoredSound:
        """Extract every sound, and the train part at other speeds, as `extract`."""

    @abstractmethod
    def _hear(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What a fusion takes of waveforms, as it is read from what `_extract_sound` stored."""

    @abstractmethod
    def _sound_shape_of(self, state: Mapping[str, torch.Tensor]) -> tuple[int, ...]:
        """The shape of what a trained network takes of sound; see `StoredSound.shape`."""

    @property
    def batch_length(self) -> int | None:
        """Most frames in a batch, padding included; None where they take little memory."""
        return None

    def _hearing_models(self) -> tuple[torch.nn.Module, ...]:
        """Pretrained models that sound goes through."""
        return ()

    @classmethod
    def describe_data(cls, data: FusedData) -> dict[str, Any]:
        """Whisper, text model and transcripts, for metrics and report."""
        return data.facts

    @classmethod
    def ablations(
        cls, config: FusedConfig, data: FusedData
    ) -> dict[str, tuple[FusedConfig, FusedData]]:
        """The same network with one modality withheld, and with the corpus's own text."""
        changes: dict[str, dict[str, object]] = {}
        if config.modalities == "both":
            changes["audio only"] = {"modalities": "audio"}
            changes["text only"] = {"modalities": "text"}
        if config.text_source == "transcript" and len(data.manifest_keys):
            own: dict[str, object] = {"text_source": "manifest"}
            if config.modalities != "audio":
                changes["oracle text"] = own
            if config.modalities == "both":
                changes["oracle text only"] = {**own, "modalities": "text"}
        return {name: (config.model_copy(update=each), data) for name, each in changes.items()}

    @classmethod
    def write_extras(cls, manifest: Manifest, data: FusedData, folder: Path) -> None:
        """Write ``transcriptions.json``."""
        ids = manifest.table["id"].to_list()
        content = transcriptions_json(ids, data.transcriptions)
        write_atomically(folder / TRANSCRIPTIONS, content)

    def fit(
        self,
        data: FusedData,
        part: Part,
        *,
        resume_file: Path,
        on_epoch: OnEpoch | None = None,
    ) -> Fit:
        """Train the fusion; each modality is standardised by the train part alone."""
        table, options = data.table(self.config), self.config.train
        self._sound_shape, self._n_text = data.sound.shape, data.n_text
        with torch.random.fork_rng():
            torch.manual_seed(part.seed)
            network = self._make_network()
        for place, modality in enumerate((network.audio, network.text)):
            modality.standardizer.fit(_observations(table, part.train, place))
        self._network = network
        self.config = self.config.model_copy(update=data.models)
        plain = partial(
            iter_plain_batches,
            table,
            batch_size=options.batch_size,
            batch_length=self.batch_length,
        )
        return fit(
            network,
            TrainingBatches(
                table,
                part.train,
                batch_size=options.batch_size,
                batch_length=self.batch_length,
                seed=part.seed,
                cells=balance_cells(options.balance, data.origins, data.targets),
            ),
            (lambda: plain(part.val)) if len(part.val) else None,
            options,
            seed=part.seed,
            resume_file=resume_file,
            on_epoch=on_epoch,
        )

    def predict_rows(self, data: FusedData, rows: np.ndarray) -> np.ndarray:
        """Probabilities from stored features [shape=(n_rows, n_labels)]."""
        options = self.config.train
        table = data.table(self.config)
        batches = iter_plain_batches(
            table, rows, batch_size=options.batch_size, batch_length=self.batch_length
        )
        result = predict(self._trained(), batches, len(data.targets), precision=options.precision)
        chosen: np.ndarray = result[rows]
        return chosen

    def predict_waveforms(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Probabilities of waveforms (16 kHz mono), transcribed first.

        Transcripts of what is predicted are somebody's words, and not kept anywhere, except
        where `keep_transcripts` asks for it.

        Returns
        -------
        np.ndarray [shape=(n_waveforms, n_labels)]
            They add up to 1 in each row.
        """
        return self.predict_spoken(waveforms, self.transcribe(waveforms))

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[str | None]:
        """What is said in waveforms (16 kHz mono); None where nothing can be believed."""
        if self.config.modalities == "audio":
            return [None] * len(waveforms)
        found = self._load_readers().transcriber.transcribe(waveforms)
        return [each.usable_text for each in found]

    def predict_spoken(
        self, waveforms: Sequence[np.ndarray], texts: Sequence[str | None]
    ) -> np.ndarray:
        """Probabilities of waveforms, as if `texts` were said in them.

        Returns
        -------
        np.ndarray [shape=(n_waveforms, n_labels)]
            They add up to 1 in each row.
        """
        network, config = self._trained(), self.config
        heard: Sequence[np.ndarray | None] = (
            [None] * len(waveforms) if config.modalities == "text" else self._hear(waveforms)
        )
        pairs = [Pair(*each) for each in zip(heard, self._read(texts), strict=True)]
        sizes = (math.prod(self._sound_shape), self._n_text)
        inputs = collate_pairs(pairs, sizes, has_sequences=config.fusion.has_sequences)
        network.eval()
        with torch_threads(self.n_threads), torch.inference_mode():
            logits = compute_logits(network, inputs, config.train.precision)
        result: np.ndarray = logits.double().softmax(1).cpu().numpy()
        return result

    def _read(self, texts: Sequence[str | None]) -> list[np.ndarray | None]:
        found: list[np.ndarray | None] = [None] * len(texts)
        places = [place for place, text in enumerate(texts) if text is not None]
        if places and self.config.modalities != "audio":
            read = self._load_readers().text.extract([text for text in texts if text is not None])
            for place, array in zip(places, read, strict=True):
                found[place] = array
        return found

    def keep_transcripts(self, store_root: Path) -> None:
        """Keep what Whisper hears in the cache in `store_root`, and hear no sound twice."""
        self._transcripts_in, self._readers = store_root, None

    def _load_readers(self) -> _Readers:
        if self._readers is None:
            config = self.config
            loaded = load_text_encoder(config.text)
            device = choose_device(config.train.device).type
            self._readers = _Readers(
                self._make_transcriber(),
                TextExtractor(loaded, keep=config.fusion.takes, device=device),
            )
        return self._readers

    def _make_transcriber(self) -> Transcriber | KeptTranscriber:
        options = self.config.whisper
        # As many as torch has: where processes share the cores, so do their Whispers.
        n_threads = options.n_threads or torch.get_num_threads()
        folder = find_whisper(options.model_copy(update={"n_threads": n_threads}))
        language = options.language or DEFAULT_LANGUAGE
        if self._transcripts_in is not None:
            return KeptTranscriber(folder, language, self._transcripts_in)
        return Transcriber(folder.load(), language)

    def to_checkpoint(self, origin: dict[str, Any]) -> Checkpoint:
        """The trained fusion, and which Whisper and text model it needs."""
        state = {name: tensor.cpu() for name, tensor in trained_state(self._trained()).items()}
        config = self.config.model_dump(mode="json")
        return Checkpoint(self.name, self.labels, config, origin, state)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> FusedSystem:
        """The trained system that `to_checkpoint` made."""
        made = build_config(cls.config_class, checkpoint.config)
        config = on_this_machine(cast(FusedConfig, made))
        if config.whisper.device == "cuda":
            anywhere = config.whisper.model_copy(update={"device": "auto"})
            config = config.model_copy(update={"whisper": anywhere})
        system = cls(checkpoint.labels, config)
        system._sound_shape = system._sound_shape_of(checkpoint.state)
        system._n_text = len(checkpoint.state.get("text.missing", ()))
        network = system._make_network()
        load_trained_state(network, checkpoint.state)
        # Now, so that a missing model is refused before the work.
        if config.modalities != "text":
            system._hearing_models()
        if config.modalities != "audio":
            system._load_readers()
        system._network = network.to(choose_device(config.train.device)).eval()
        return system

    def _make_network(self) -> FusionNetwork:
        return make_fusion(
            self.config.fusion,
            audio_shape=self._sound_shape,
            n_text=self._n_text,
            n_labels=len(self.labels),
        )

    def _trained(self) -> FusionNetwork:
        if self._network is None:
            raise RuntimeError("The system is neither trained nor loaded.")
        return self._network


def _observations(table: PairTable, rows: np.ndarray, place: int) -> Iterator[np.ndarray]:
    """A modality of the train part, where it is there [each shape=(n, n_values)]."""
    for row in rows.tolist():
        pair = table.read(row)
        values = (pair.audio, pair.text)[place]
        if values is not None:
            yield values.T if values.ndim == 2 else values[None]
