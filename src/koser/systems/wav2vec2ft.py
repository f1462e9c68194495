"""System 3 of the document: the last layers of a speech encoder trained with the head.

The trunk below them is frozen, so it runs once: its output is kept, memory-mapped and in
half precision, and training starts there. Without augmentation that is the plain way,
step for step, at a fraction of its cost. Where the trunk's input changes in every epoch,
or the front-end itself is trained, there is nothing to keep, and the plain way is taken.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from numpy.lib.format import open_memmap
from pydantic import Field

from koser.audio.augmentation import AugmentOptions
from koser.audio.reading import SAMPLING_RATE
from koser.config import build_config
from koser.data.manifest import Manifest
from koser.engines.engine import Engine
from koser.engines.local import SERIAL
from koser.features.extraction import Progress, clips_of
from koser.features.speech.extractors import TrunkExtractor
from koser.features.speech.loading import LoadedEncoder, load_encoder
from koser.features.speech.windows import split_windows
from koser.files import reserve
from koser.models.checkpoint import (
    Checkpoint,
    load_tensors,
    load_trained_state,
    save_tensors,
    trained_state,
)
from koser.models.heads import HeadOptions
from koser.models.speech import (
    FineTunedEncoder,
    TuneOptions,
    average_with,
    trained_states,
)
from koser.systems.graphs import FineTunedGraph
from koser.systems.memory import check_memory
from koser.systems.speech import (
    ProbeTrain,
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
from koser.training.batches import (
    Table,
    TrainingBatches,
    iter_plain_batches,
    pad_windows,
)
from koser.training.corpora import Origins, balance_cells
from koser.training.devices import choose_device, compute_logits, explained_memory_errors
from koser.training.loop import fit
from koser.training.options import TrainOptions
from koser.training.progress import Fit, OnEpoch
from koser.training.ranks import ALONE, Ranks
from koser.training.scoring import predict
from koser.training.tables import ArrayTable, WindowTable
from koser.training.waveforms import WaveformTable

logger = logging.getLogger(__name__)


# Not those of pace (rate, warm-up, clipping, batches): the head alone takes other ones.
_OF_PROBE_TOO = ("weight_decay", "label_smoothing", "class_weights", "draws", "device", "precision")


class FineTuneTrain(TrainOptions):
    """How head and layers learn; `tune.rate` says how much slower the layers do."""

    epochs: int = Field(5, gt=0)
    patience: int = Field(3, gt=0)
    learning_rate: float = Field(1e-4, gt=0)  # the head's
    warmup: float = Field(0.1, ge=0, lt=1)
    clip_norm: float = Field(1.0, gt=0)
    batch_seconds: float = Field(60.0, gt=0)  # sound in a batch, padding included
    n_threads: int = Field(0, ge=0)  # a training of hours should not leave cores idle


_SHORTER = "Give shorter recordings, or hear a long one piece by piece: koser predict --timeline"


class Wav2Vec2FtConfig(SpeechConfig):
    """All settings of the system."""

    head: HeadOptions = HeadOptions()
    tune: TuneOptions = TuneOptions()
    # Speeds at which the train part is heard beside 1.0 (Ko et al., Interspeech 2015): few
    # enough for the trunk to run once for each. `augment` has no end of them.
    speeds: tuple[float, ...] = (0.9, 1.1)
    augment: AugmentOptions = AugmentOptions()
    # Epochs in which the head learns alone, before any layer does; cheap ones, on what one
    # pass through the pretrained layers gave.
    probe_epochs: int = Field(100, ge=0)
    train: FineTuneTrain = FineTuneTrain()
    # What the trunk's output is kept in: half precision rounds it to 3 decimal digits.
    keep: Literal["float16", "float32"] = "float16"

    @property
    def why_plain(self) -> str:
        """Why the trunk has to run in every step; empty if it does not."""
        if self.augment.is_on:
            return "waveform augmentation changes what the encoder hears"
        return "the front-end is trained too" if self.tune.trains_front_end else ""

    @property
    def probe(self) -> ProbeTrain:
        """How the head learns alone: what it is to learn is as for all, its pace its own."""
        shared = {name: getattr(self.train, name) for name in _OF_PROBE_TOO}
        return ProbeTrain(epochs=self.probe_epochs, n_threads=1, **shared)


class Wav2Vec2FtSystem(SpeechSystem):
    """An encoder whose last layers are trained."""

    name = "wav2vec2ft"
    config_class = Wav2Vec2FtConfig

    @classmethod
    def extract(
        cls,
        manifest: Manifest,
        config: Wav2Vec2FtConfig,
        *,
        train_rows: np.ndarray,
        store_root: Path,
        engine: Engine = SERIAL,
        progress: Progress | None = None,
        ranks: Ranks = ALONE,
    ) -> SpeechData:
        """Let the trunk hear every utterance, unless training takes the plain way."""
        loaded = load_encoder(config.encoder)
        first = config.tune.first_state(loaded.encoder.n_layers)
        # A wrong one is refused before the work.
        trained_states(config.head, config.tune, loaded.encoder.n_layers)
        variants = None
        if config.why_plain:
            logger.warning(
                "The whole encoder runs in every step, because %s: several times slower than "
                "from a stored trunk, and `speeds` are not heard.",
                config.why_plain,
            )
        else:
            variants = extract_variants(
                manifest,
                [
                    _trunk(loaded, config, speed, engine.device)
                    for speed in all_speeds(config.speeds)
                ],
                train_rows=train_rows,
                store_root=store_root,
                engine=engine,
                progress=progress,
                ranks=ranks,
            )
        trained = "all" if config.tune.trains_front_end else loaded.encoder.n_layers - first
        facts = {"encoder": config.encoder.name, **loaded.describe(), "trained layers": trained}
        return SpeechData(
            variants,
            target_distributions(manifest, config.train.target),
            loaded.options,
            facts,
            Origins.of(manifest),
            clips=tuple(clips_of(manifest.table)),
            durations=manifest.table["duration"].to_numpy(),
        )

    def fit(
        self, data: SpeechData, part: Part, *, resume_file: Path, on_epoch: OnEpoch | None = None
    ) -> Fit:
        """Train the head and the last layers."""
        options = self.config.train
        self._loaded = None  # training changes an encoder in place: each begins with its own
        with torch.random.fork_rng():
            torch.manual_seed(part.seed)
            network = self._make_network(self._load(data.encoder))
        if self.start is not None:
            self.start.put_into(network, self.labels, head_outputs(network.classifier))
        ranks = self.ranks
        device = ranks.use(choose_device(options.device))
        check_memory(
            network, options, options.batch_seconds, device, ranks, share=self.memory_share
        )
        table, limit = self._table(data), self._batch_length()
        batches = partial(iter_plain_batches, table, batch_length=limit, ranks=ranks)
        network.to(device).classifier.set_ridge(self.config.head, len(part.train))
        cells = balance_cells(options.balance, data.origins, data.targets)
        start_file = resume_file.with_name(f"{resume_file.stem}-start.pth")
        source = TrainingBatches(
            table, part.train, batch_length=limit, seed=part.seed, cells=cells, ranks=ranks
        )
        if ranks.from_first(lambda: not (resume_file.exists() and start_file.exists())):
            if not self._knows_all_labels:
                with explained_memory_errors(options):
                    self._probe(network, self._plain_tables(data), part, resume_file, cells)
            if ranks.is_first:
                save_tensors(trained_state(network), start_file)
        result = fit(
            network,
            source,
            (lambda: batches(part.val)) if len(part.val) else None,
            options,
            seed=part.seed,
            resume_file=resume_file,
            on_epoch=on_epoch,
        )
        if ranks.is_first:
            average_with(network, load_tensors(start_file), self.config.tune.average)
        ranks.tensors_from_first(list(trained_state(network).values()))
        self._network = network
        log_layer_weights(network.classifier)
        return result

    def _probe(
        self,
        network: FineTunedEncoder,
        tables: Sequence[Table],
        part: Part,
        resume_file: Path,
        cells: np.ndarray | None,
    ) -> None:
        """Let the head learn alone first, on the pretrained states.

        A random head would send meaningless gradients into the encoder; starting from a
        linear probe, fine-tuning keeps more of what generalises [Kumar et al.,
        "Fine-tuning can distort pretrained features and underperform out-of-distribution",
        ICLR 2022]. All ranks run the encoder, the first one trains the head.
        """
        train = np.sort(part.train)
        found = self._iter_pooled(network, tables, train)
        if not self.ranks.is_first:
            for _ in found:  # what this one makes goes to the first
                pass
            return
        folder, prefix = resume_file.parent, f"{resume_file.stem}-probe-"
        for left_behind in folder.glob(f"{prefix}*"):  # by a killed training
            shutil.rmtree(left_behind)
        with tempfile.TemporaryDirectory(dir=folder, prefix=prefix) as temporary:
            file, pooled = Path(temporary) / "pooled.npy", np.zeros(0, np.float32)
            for variant, rows, values in found:
                if not len(pooled):
                    shape = (len(tables) * len(train), *values.shape[1:])
                    pooled = open_memmap(file, "w+", np.float32, shape)
                    reserve(file)
                pooled[variant * len(train) + np.searchsorted(train, rows)] = values
            classifier = network.classifier
            if self.start is None:
                classifier.standardizer.fit(pooled[[row]] for row in range(len(pooled)))
            if self.config.probe_epochs == 0:
                return
            options = self.config.probe
            source = TrainingBatches(
                ArrayTable(pooled, np.tile(tables[0].targets[train], (len(tables), 1))),
                np.arange(len(pooled)),
                batch_size=options.batch_size,
                seed=part.seed,
                cells=None if cells is None else np.tile(cells[train], len(tables)),
            )
            logger.info("the head alone:")
            own_file = Path(temporary) / "last.pth"
            fit(classifier, source, None, options, seed=part.seed, resume_file=own_file)

    @property
    def _knows_all_labels(self) -> bool:
        """Whether the head comes trained, so that there is nothing for it to learn alone first."""
        return self.start is not None and self.start.kept_labels(self.labels) == list(self.labels)

    def _iter_pooled(
        self, network: FineTunedEncoder, tables: Sequence[Table], rows: np.ndarray
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """On the first rank: table, rows and pooled states of every batch; nothing on others."""
        limit, precision = self._batch_length(), self.config.train.precision
        for place, table in enumerate(tables):
            batches = iter_plain_batches(table, rows, batch_length=limit, ranks=self.ranks)
            for found in self.ranks.gather_to_first(iter_pooled(network, batches, precision)):
                yield place, *found

    def predict_rows(self, data: SpeechData, rows: np.ndarray) -> np.ndarray:
        """Probabilities from the stored trunk, or from sound [shape=(n_rows, n_labels)]."""
        batches = iter_plain_batches(
            self._table(data), rows, batch_length=self._batch_length(), ranks=self.ranks
        )
        network, n_rows = self._trained(), len(data.targets)
        precision = self.config.train.precision
        with explained_memory_errors(self.config.train):
            result = predict(network, batches, n_rows, precision=precision, ranks=self.ranks)
        chosen: np.ndarray = result[rows]
        return chosen

    def predict_waveforms(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Probabilities of waveforms (16 kHz mono) [shape=(n_waveforms, n_labels)]."""
        network, loaded = self._trained(), self._load(self.config.encoder)
        network.eval()
        with explained_memory_errors(self.config.train, instead=_SHORTER), torch.inference_mode():
            if network.from_waveforms:
                arrays = [split_windows(each, self._window_samples()) for each in waveforms]
            else:
                # Through what training starts from, its rounding included.
                arrays = _trunk(loaded, self.config).extract(waveforms)
            logits = compute_logits(network, pad_windows(arrays), self.config.train.precision)
        result: np.ndarray = logits.double().softmax(1).cpu().numpy()
        return result

    def to_graph(self) -> torch.nn.Module:
        """From waveform to logits in operations that ONNX has."""
        self._load(self.config.encoder).encoder.cpu()
        network = cast(FineTunedEncoder, self._trained().cpu())
        keep = torch.float16 if self.config.keep == "float16" else torch.float32
        return FineTunedGraph(network, self.config.encoder.window_seconds, keep).eval()

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> Wav2Vec2FtSystem:
        """The trained system that `to_checkpoint` made."""
        config = on_this_machine(build_config(Wav2Vec2FtConfig, checkpoint.config))
        system = cls(checkpoint.labels, config)
        network = system._make_network(system._load(system.config.encoder))
        load_trained_state(network, checkpoint.state)
        system._network = network.to(choose_device(system.config.train.device)).eval()
        return system

    def _make_network(self, loaded: LoadedEncoder) -> FineTunedEncoder:
        return FineTunedEncoder(
            loaded.encoder,
            len(self.labels),
            self.config.head,
            self.config.tune,
            from_waveforms=bool(self.config.why_plain),
            at_once=self._batch_length(),
        )

    def _table(self, data: SpeechData) -> Table:
        if data.variants is not None:
            return WindowTable(data.variants.open(), data.variants.keys, data.targets)
        return WaveformTable(
            data.clips,
            self._window_samples(),
            data.targets,
            data.durations,
            self.config.augment,
            data.encoder.fingerprint,
        )

    def _plain_tables(self, data: SpeechData) -> list[Table]:
        """The train part as the head first hears it: at every speed, unaugmented."""
        if data.variants is None:
            return [self._table(data)]
        keys = data.variants.keys
        return [
            WindowTable((store,), keys[[variant]], data.targets)
            for variant, store in enumerate(data.variants.open())
        ]

    def _window_samples(self) -> int:
        seconds: float = self.config.encoder.window_seconds
        return round(seconds * SAMPLING_RATE)

    def _batch_length(self) -> int:
        """Largest batch, in samples or in frames of the trunk."""
        seconds: float = self.config.train.batch_seconds
        n_samples = round(seconds * SAMPLING_RATE)
        if self.config.why_plain:
            return n_samples
        encoder = self._load(self.config.encoder).encoder
        return int(encoder.count_frames(torch.tensor([n_samples]))[0])


def _trunk(
    loaded: LoadedEncoder,
    config: Wav2Vec2FtConfig,
    speed: float = 1.0,
    device: str | None = None,
) -> TrunkExtractor:
    device = device or choose_device(config.train.device).type
    first = config.tune.first_state(loaded.encoder.n_layers)
    return TrunkExtractor(loaded, first, dtype=config.keep, speed=speed, device=device)
