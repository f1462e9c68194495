"""System 2 of the document: a frozen speech encoder, pooled over real frames, and a head.

The encoder hears every utterance once; what is kept of its states is in the store, and
a head trains on it in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from pydantic import Field

from koser.config import Config, build_config
from koser.data.enrolment import EnrolmentOptions
from koser.data.manifest import Manifest
from koser.engines.engine import Engine
from koser.engines.local import SERIAL
from koser.errors import ConfigError
from koser.features.extraction import Progress
from koser.features.speech.extractors import (
    EncoderExtractor,
    FramesExtractor,
    StatisticsExtractor,
)
from koser.features.speech.loading import LoadedEncoder, load_encoder
from koser.features.voices import Voice, adapt, summarise
from koser.models.checkpoint import Checkpoint, load_trained_state
from koser.models.heads import HeadOptions
from koser.models.speech import FramesHead, StatisticsHead
from koser.systems.corpora import CorporaOptions, align, fit_alignment, in_training
from koser.systems.enrolment import (
    Enroller,
    Enrolling,
    draw_enrolment,
    enrolled_table,
    refuse_graph,
    state_with,
)
from koser.systems.graphs import FramesGraph, StatisticsGraph
from koser.systems.speech import (
    FRAMES_PER_SECOND,
    HeadTrain,
    SpeechConfig,
    SpeechData,
    SpeechSystem,
    head_outputs,
    iter_pooled,
    log_layer_weights,
    on_this_machine,
)
from koser.systems.system import Part, target_distributions
from koser.systems.variants import all_speeds, extract_variants
from koser.training.batches import Table, TrainingBatches, iter_plain_batches
from koser.training.corpora import Alignment, Origins, balance_cells
from koser.training.devices import choose_device, compute_logits
from koser.training.loop import fit
from koser.training.progress import Fit, OnEpoch
from koser.training.ranks import ALONE, Ranks
from koser.training.scoring import predict
from koser.training.tables import FramesTable, StatisticsTable


class Wav2Vec2Train(HeadTrain):
    """How the head learns, and how much sound it learns from at once."""

    # With attentive pooling: sound in a batch, padding included, which `batch_size` clips of
    # up to 5 s do not reach. Frames of longer ones would take memory without end.
    batch_seconds: float = Field(160.0, gt=0)


class Wav2Vec2Config(SpeechConfig):
    """All settings of the system."""

    head: HeadOptions = HeadOptions()
    train: Wav2Vec2Train = Wav2Vec2Train()
    corpora: CorporaOptions = CorporaOptions()
    enrolment: EnrolmentOptions = EnrolmentOptions()
    # Speeds at which the train part is heard beside 1.0 (Ko et al., Interspeech 2015).
    speeds: tuple[float, ...] = (0.9, 1.1)
    # What hidden states are kept in: half precision rounds them to 3 decimal digits.
    keep: Literal["float16", "float32"] = "float16"


class Wav2Vec2System(Enrolling, SpeechSystem):
    """A frozen encoder and a head."""

    name = "wav2vec2"
    config_class = Wav2Vec2Config

    def __init__(self, labels: Sequence[str], config: Config) -> None:
        super().__init__(labels, config)
        self._alignment: Alignment | None = None

    @classmethod
    def extract(
        cls,
        manifest: Manifest,
        config: Wav2Vec2Config,
        *,
        train_rows: np.ndarray,
        store_root: Path,
        engine: Engine = SERIAL,
        progress: Progress | None = None,
        ranks: Ranks = ALONE,
    ) -> SpeechData:
        """Let the encoder hear every utterance, and the train part at other speeds."""
        loaded = load_encoder(config.encoder)
        config.head.states(loaded.encoder.n_layers)  # a wrong one is refused before the work
        variants = extract_variants(
            manifest,
            [
                _extractor(loaded, config, speed, engine.device)
                for speed in all_speeds(config.speeds)
            ],
            train_rows=train_rows,
            store_root=store_root,
            engine=engine,
            progress=progress,
            ranks=ranks,
        )
        facts = {"encoder": config.encoder.name, **loaded.describe(), "trained layers": "none"}
        targets = target_distributions(manifest, config.train.target)
        return SpeechData(
            variants,
            targets,
            loaded.options,
            facts,
            Origins.of(manifest),
            enrolment=draw_enrolment(manifest, config.enrolment),
        )

    def fit(
        self, data: SpeechData, part: Part, *, resume_file: Path, on_epoch: OnEpoch | None = None
    ) -> Fit:
        """Train the head; its standardisation is fitted on the train part alone."""
        options, origins = self.config.train, data.origins
        network, table = self.begin(data, part)
        batches = partial(
            iter_plain_batches,
            table,
            batch_size=options.batch_size,
            batch_length=self.batch_length,
            ranks=self.ranks,
        )
        source = TrainingBatches(
            table,
            part.train,
            batch_size=options.batch_size,
            batch_length=self.batch_length,
            seed=part.seed,
            cells=balance_cells(options.balance, origins, data.targets),
            ranks=self.ranks,
        )
        with in_training(
            network,
            network.classifier.representation,
            self.config.corpora,
            origins,
            seed=part.seed,
        ) as fitted:
            result = fit(
                fitted,
                source,
                (lambda: batches(part.val)) if len(part.val) else None,
                options,
                seed=part.seed,
                resume_file=resume_file,
                on_epoch=on_epoch,
            )
        log_layer_weights(network.classifier)
        return result

    # Any: one of the two heads.
    def begin(self, data: SpeechData, part: Part) -> tuple[Any, Table]:
        """A new head that is standardised by the train part, and what it is trained on."""
        stored, options = self._table(data), self.config.train
        n_states, width = _sizes(stored, part.train)
        self._alignment = fit_alignment(
            self.config.corpora, stored, part.train, data.origins, has_frames=self._has_frames
        )
        table = align(stored, data.origins, self._alignment)
        with torch.random.fork_rng():
            torch.manual_seed(part.seed)
            network = self._make_network(n_states, width)
        if self.start is None:
            batches = iter_plain_batches(
                table, part.train, batch_size=options.batch_size, batch_length=self.batch_length
            )
            network.classifier.standardizer.fit(
                pooled for _, pooled in iter_pooled(network, batches, options.precision)
            )
        else:
            self.start.put_into(network, self.labels, head_outputs(network.classifier))
        network.classifier.set_ridge(self.config.head, len(part.train))
        self._network = network
        self.config = self.config.model_copy(update={"encoder": data.encoder})
        self._enroller = Enroller.fit(
            self.config.enrolment,
            self.config.corpora,
            table,
            part.train,
            data.enrolment,
            has_frames=self._has_frames,
        )
        return network, enrolled_table(table, self._enroller, data.enrolment)

    def open_table(self, data: SpeechData) -> Table:
        """What a trained head is given."""
        table = align(self._table(data), data.origins, self._alignment)
        return enrolled_table(table, self._enroller, data.enrolment)

    def predict_rows(self, data: SpeechData, rows: np.ndarray) -> np.ndarray:
        """Probabilities from stored features [shape=(n_rows, n_labels)]."""
        options = self.config.train
        batches = iter_plain_batches(
            self.open_table(data),
            rows,
            batch_size=options.batch_size,
            batch_length=self.batch_length,
            ranks=self.ranks,
        )
        network, n_rows = self._trained(), len(data.targets)
        result = predict(network, batches, n_rows, precision=options.precision, ranks=self.ranks)
        chosen: np.ndarray = result[rows]
        return chosen

    @property
    def network(self) -> torch.nn.Module:
        """The trained head."""
        return self._trained()

    def summarise(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Features of waveforms (16 kHz mono), those of frames averaged."""
        return [summarise(each, has_frames=self._has_frames) for each in self._hear(waveforms)]

    def compute_outputs(
        self, waveforms: Sequence[np.ndarray], voices: Sequence[Voice | None] | None = None
    ) -> torch.Tensor:
        """What the head gives for waveforms [shape=(n_waveforms, n_labels)], float64."""
        network = self._trained()
        network.eval()
        voices = [None] * len(waveforms) if voices is None else voices
        table = FramesTable if self._has_frames else StatisticsTable
        with torch.inference_mode():
            found = self._hear(waveforms)
            inputs = table.collate([adapt(*pair) for pair in zip(found, voices, strict=True)])
            logits = compute_logits(network, inputs, self.config.train.precision)
        return logits.double().cpu()

    def _hear(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What would be stored of waveforms."""
        extractor = _extractor(self._load(self.config.encoder), self.config, 1.0)
        return extractor.extract(waveforms)

    def to_graph(self) -> torch.nn.Module:
        """From waveform to logits in operations that ONNX has."""
        refuse_graph(self._enroller)
        loaded, head = self._load(self.config.encoder), self._trained().cpu()
        encoder, seconds = loaded.encoder.cpu().exportable(), self.config.encoder.window_seconds
        keep = torch.float16 if self.config.keep == "float16" else torch.float32
        if isinstance(head, FramesHead):
            states = self.config.head.states(encoder.n_layers)
            return FramesGraph(encoder, head, seconds, keep, states).eval()
        return StatisticsGraph(encoder, cast(StatisticsHead, head), seconds, keep).eval()

    def to_checkpoint(self, origin: dict[str, Any]) -> Checkpoint:
        """The trained part as a checkpoint, with what is known of speakers."""
        made = super().to_checkpoint(origin)
        return replace(made, state=state_with(self._enroller, made.state))

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> Wav2Vec2System:
        """The trained system that `to_checkpoint` made."""
        config = on_this_machine(build_config(Wav2Vec2Config, checkpoint.config))
        system = cls(checkpoint.labels, config)
        loaded = system._load(system.config.encoder)
        states = system.config.head.states(loaded.encoder.n_layers)
        n_states = len(states) if system._has_frames else loaded.encoder.n_layers + 1
        network = system._make_network(n_states, loaded.encoder.width)
        state = dict(checkpoint.state)
        system._enroller = Enroller.pop(
            state, system.config.enrolment, has_frames=system._has_frames
        )
        load_trained_state(network, state)
        system._network = network.to(choose_device(system.config.train.device)).eval()
        return system

    @property
    def batch_length(self) -> int | None:
        """Most frames in a batch, padding included; None where the head takes none."""
        seconds: float = self.config.train.batch_seconds
        return max(1, round(seconds * FRAMES_PER_SECOND)) if self._has_frames else None

    @property
    def _has_frames(self) -> bool:
        """Whether the head pools frames itself, instead of taking their statistics."""
        return bool(self.config.head.pooling == "attentive")

    def _make_network(self, n_states: int, width: int) -> Any:  # one of the two heads
        kind = FramesHead if self._has_frames else StatisticsHead
        return kind(n_states, width, len(self.labels), self.config.head)

    def _table(self, data: SpeechData) -> FramesTable | StatisticsTable:
        if data.variants is None:
            raise ConfigError("The features of this system are stored ones. Extract them first.")
        kind = FramesTable if self._has_frames else StatisticsTable
        return kind(data.variants.open(), data.variants.keys, data.targets)


def _extractor(
    loaded: LoadedEncoder, config: Wav2Vec2Config, speed: float, device: str | None = None
) -> EncoderExtractor:
    device = device or choose_device(config.train.device).type
    if config.head.pooling != "attentive":
        return StatisticsExtractor(loaded, dtype=config.keep, speed=speed, device=device)
    states = config.head.states(loaded.encoder.n_layers)
    return FramesExtractor(loaded, states, dtype=config.keep, speed=speed, device=device)


def _sizes(table: FramesTable | StatisticsTable, rows: np.ndarray) -> tuple[int, int]:
    """States and width of what is stored."""
    shape = table.read(int(rows[0])).shape
    return shape[0], shape[1] if isinstance(table, FramesTable) else shape[2]
