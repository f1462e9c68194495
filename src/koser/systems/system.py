"""What every system is: features, a network, a training, and a map to probabilities."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch

from koser.config import Config
from koser.data.manifest import Manifest
from koser.data.raters import rater_shares
from koser.data.splits import Split
from koser.engines.engine import Engine
from koser.engines.local import SERIAL
from koser.errors import ConfigError
from koser.evaluation.metrics import label_ids
from koser.features.extraction import Progress
from koser.features.voices import SpeakerPrior, Voice
from koser.models.checkpoint import Checkpoint
from koser.systems.starting import Start
from koser.training.options import Target
from koser.training.progress import Fit, OnEpoch
from koser.training.ranks import ALONE, Ranks

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """One training: which utterances play which part, and with which seed.

    Attributes
    ----------
    train, val, test : np.ndarray [shape=(n_utterances of the part,)]
        Rows of the manifest. `val` may be empty.
    seed : int
        Of the network's start, the order, dropout and augmentation.
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    seed: int


@dataclass(frozen=True)
class ParameterCount:
    """How large a system is.

    Attributes
    ----------
    trained : int
        Parameters that training sets.
    total : int
        All that a recognition runs through, those of pretrained models included.
    beside : str
        A model whose parameters cannot be counted, such as a converted Whisper; empty if
        there is none.
    """

    trained: int
    total: int
    beside: str = ""

    @classmethod
    def of(
        cls, trained: torch.nn.Module, *frozen: torch.nn.Module, beside: str = ""
    ) -> ParameterCount:
        """Count the parameters of networks; one that two of them share counts once."""
        learned = {id(p): p.numel() for p in trained.parameters() if p.requires_grad}
        every = {id(p): p.numel() for each in (trained, *frozen) for p in each.parameters()}
        return cls(sum(learned.values()), sum(every.values()), beside)


@dataclass(frozen=True)
class Inside:
    """What a trained system tells of its parts.

    Attributes
    ----------
    probabilities : dict[str, np.ndarray]
        By part: what it says by itself, as `System.predict_rows` does.
    facts : dict
        How the parts come together, as JSON values.
    """

    probabilities: dict[str, np.ndarray] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


class System(ABC):
    """A trained or trainable map from sound to probabilities of labels.

    Parameters
    ----------
    labels : Sequence[str]
        The classes, in the order of every probability column.
    config : Config
        An instance of the system's `config_class`.

    Attributes
    ----------
    ranks : Ranks
        The processes that train it and predict rows together; each has its own copy of it.
    start : Start or None
        The trained model that its training starts from; None for a new network.
    memory_share : int or None
        Bytes of the machine's memory that it may take; None for whatever is free.
    """

    name: ClassVar[str]
    config_class: ClassVar[type[Config]]
    # Whether several processes can share a training.
    is_shareable: ClassVar[bool] = True
    ranks: Ranks = ALONE
    start: Start | None = None
    memory_share: int | None = None

    def __init__(self, labels: Sequence[str], config: Config) -> None:
        self.labels = tuple(labels)
        self.config = config

    @property
    def n_threads(self) -> int:
        """Threads of torch that it trains with; 0 for as many as are free."""
        options: Any = self.config  # whatever it is, it has a section that tells how to train
        threads: int = options.train.n_threads
        return threads

    @property
    def device(self) -> str:
        """Where it computes: ``auto``, ``cpu`` or ``cuda``."""
        options: Any = self.config
        name: str = options.train.device
        return name

    @abstractmethod
    def count_parameters(self) -> ParameterCount:
        """How large the trained system is."""

    @classmethod
    def settle(
        cls,
        config: Any,  # an instance of `config_class`
        manifest: Manifest,
        split: Split,
    ) -> Any:
        """The configuration with what the data and their split decide of it.

        Raises
        ------
        ConfigError
            If they cannot serve the system.
        """
        return config  # nothing, for most

    @classmethod
    @abstractmethod
    def extract(
        cls,
        manifest: Manifest,
        config: Any,  # an instance of `config_class`
        *,
        train_rows: np.ndarray,
        store_root: Path,
        engine: Engine = SERIAL,
        progress: Progress | None = None,
        ranks: Ranks = ALONE,
    ) -> Any:  # what `fit` and `predict_rows` take; each system's own, picklable
        """Make all features that training and testing on `manifest` need.

        `train_rows` are those that train in any fold: augmented copies are made of
        these alone. Of several `ranks` the first makes them; the others wait, and are told
        where they lie.
        """

    @classmethod
    def describe_data(cls, data: Any) -> dict[str, Any]:
        """What a result should say of the features in `data`, as JSON values.

        Parameters
        ----------
        data : object
            What `extract` returned.

        Returns
        -------
        dict
            Such as the name, revision and fingerprint of an encoder; empty where the
            configuration says it all.
        """
        return {}

    @classmethod
    def ablations(cls, config: Any, data: Any) -> dict[str, tuple[Any, Any]]:
        """What is trained and tested beside the system, for its result to be read by.

        Parameters
        ----------
        config : Config
            The system's.
        data : object
            What `extract` returned.

        Returns
        -------
        dict
            A configuration and data by name, such as of the system without its text; both
            as `fit` takes them.
        """
        return {}

    @classmethod
    def write_extras(cls, manifest: Manifest, data: Any, folder: Path) -> None:
        """Leave in the run folder what belongs to this system beside every run's files."""
        return  # nothing, for most

    @abstractmethod
    def fit(
        self, data: Any, part: Part, *, resume_file: Path, on_epoch: OnEpoch | None = None
    ) -> Fit:
        """Train on one part; afterwards the system has its best weights.

        What it needs to be resumed with is in `resume_file`, and beside it in files whose
        names begin with its stem. The caller removes them when the result is safe.
        """

    @abstractmethod
    def predict_rows(self, data: Any, rows: np.ndarray) -> np.ndarray:
        """Probabilities of utterances whose features `data` has [shape=(n_rows, n_labels)]."""

    def inspect_rows(self, data: Any, rows: np.ndarray) -> Inside:
        """What the parts of a system that has just been trained say of rows."""
        return Inside()  # nothing, for most

    @abstractmethod
    def predict_waveforms(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Probabilities of waveforms (16 kHz mono) [shape=(n_waveforms, n_labels)]."""

    def keep_transcripts(self, store_root: Path) -> None:  # noqa: B027  nothing, for most
        """Keep what Whisper hears in the cache in `store_root`, and hear no sound twice."""

    def to_graph(self) -> torch.nn.Module:
        """The trained system as one computation that ONNX can express.

        Returns
        -------
        torch.nn.Module
            Maps a waveform (16 kHz mono) [shape=(n_samples,)] to logits [shape=(1, n_labels)].

        Raises
        ------
        ConfigError
            If the system needs more than a waveform, or has parts that ONNX lacks.
        """
        raise ConfigError(
            f"A model of '{self.name}' cannot be exported to one ONNX file: it needs more than "
            f"the waveform."
        )

    @abstractmethod
    def to_checkpoint(self, origin: dict[str, Any]) -> Checkpoint:
        """The trained system as a checkpoint."""

    @classmethod
    @abstractmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> System:
        """The trained system that `to_checkpoint` made."""


@runtime_checkable
class ReadingSystem(Protocol):
    """A system that hears words too, and can be told them."""

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[str | None]:
        """What is said in waveforms (16 kHz mono); None where nothing can be believed."""
        ...

    def predict_spoken(
        self, waveforms: Sequence[np.ndarray], texts: Sequence[str | None]
    ) -> np.ndarray:
        """Probabilities of waveforms, as if `texts` were said [shape=(n_waveforms, n_labels)]."""
        ...


@runtime_checkable
class EnrollingSystem(Protocol):
    """A system that can adapt to a voice, if it was trained to."""

    @property
    def prior(self) -> SpeakerPrior | None:
        """What it knows of speakers; None where it was trained without enrolment."""
        ...

    def summarise(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What `SpeakerPrior.hear` takes of waveforms (16 kHz mono), one for each."""
        ...

    def predict_enrolled(
        self, waveforms: Sequence[np.ndarray], voices: Sequence[Voice | None]
    ) -> np.ndarray:
        """Probabilities of waveforms, each of a known voice or of an unknown one.

        Returns
        -------
        np.ndarray [shape=(n_waveforms, n_labels)]
        """
        ...


def target_distributions(manifest: Manifest, target: Target = "auto") -> np.ndarray:
    """What each utterance should be recognised as.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    target : {'auto', 'label', 'votes'}
        ``auto``: the raters' distribution where the manifest keeps one, else the label.
        ``votes``: the shares of the raters' votes; the label where nobody voted for a label of
        the task, which is warned of.

    Returns
    -------
    np.ndarray [shape=(n_utterances, n_labels)]
        float32; each row adds up to 1.

    Raises
    ------
    ConfigError
        If ``votes`` are wanted and no utterance has any.
    """
    targets: np.ndarray = np.eye(len(manifest.labels), dtype=np.float32)[
        label_ids(manifest.table["label"].to_numpy(), labels=manifest.labels)
    ]
    if target == "label":
        return targets
    if target == "auto":
        for row, distribution in enumerate(manifest.table["distribution"]):
            if distribution is not None:
                targets[row] = distribution.to_numpy()
        return targets
    shares = rater_shares(manifest)
    is_rated = shares.any(axis=1)
    if not is_rated.any():
        raise ConfigError(
            f"train.target = votes: none of the {len(manifest)} utterances has raters' votes. "
            f"Leave it out, or prepare a corpus that keeps them."
        )
    if not is_rated.all():
        logger.warning(
            "%d of %d utterances have no vote for a label of the task: they train on their label.",
            int((~is_rated).sum()),
            len(manifest),
        )
    targets[is_rated] = shares[is_rated]
    return targets
