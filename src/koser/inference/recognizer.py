"""The recognizer: a trained system, and any sound.

Labels, front-end and network come from the checkpoint alone, so a model says the same
however it was loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from koser.audio.reading import SAMPLING_RATE, load
from koser.audio.resampling import resample
from koser.data.corpora.collecting import audio_files
from koser.errors import AudioError
from koser.features.batching import batches_by_length
from koser.features.extraction import Clip
from koser.models.checkpoint import Checkpoint, find_checkpoint
from koser.systems import system_class
from koser.systems.system import System

# Files read before they are recognised together: enough to fill the network, few enough
# to hold. A batch is bounded in seconds too, so that one long file does not pad fifteen.
_MICRO_BATCH = 16
_BATCH_SECONDS = 120


@dataclass(frozen=True)
class Prediction:
    """What a recognizer makes of one piece of sound.

    Attributes
    ----------
    label : str
        The most probable label.
    probabilities : Mapping[str, float]
        Of every label, in the model's order; they add up to 1.
    duration : float
        Length of the sound in seconds.
    path : str or None
        The file, where it was one.
    start : float or None
        Where in the file the sound starts, in seconds; None if it is the whole file.
    """

    label: str
    probabilities: Mapping[str, float]
    duration: float
    path: str | None = None
    start: float | None = None

    @property
    def confidence(self) -> float:
        """Probability of `label`."""
        return self.probabilities[self.label]


@dataclass(frozen=True)
class Failure:
    """A file that could not be recognised, and why."""

    path: str
    error: str


class Recognizer:
    """A trained system that maps sound to emotions.

    Parameters
    ----------
    system : System
        The trained system.
    origin : Mapping[str, object]
        Where it comes from: protocol, split, corpus, seed.
    """

    def __init__(self, system: System, origin: Mapping[str, object]) -> None:
        self._system = system
        self.origin = dict(origin)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels it knows, in the order of its probabilities."""
        return self._system.labels

    def predict_array(self, waveform: np.ndarray, sampling_rate: int) -> Prediction:
        """Recognise a waveform.

        Parameters
        ----------
        waveform : np.ndarray [shape=(n_samples,) or (n_samples, n_channels)]
            Samples in [-1, 1]; channels are averaged.
        sampling_rate : int
            In Hz; resampled to 16 kHz if it is another.

        Raises
        ------
        AudioError
            If it is empty, or holds NaN or infinity.
        """
        samples = np.asarray(waveform, dtype=np.float32)
        mono = samples.mean(axis=1) if samples.ndim == 2 else samples
        if mono.ndim != 1 or mono.size == 0:
            raise AudioError(
                f"A waveform of shape {samples.shape} holds no sound. "
                f"Give (n_samples,) or (n_samples, n_channels)."
            )
        if not np.isfinite(mono).all():
            raise AudioError("The waveform holds NaN or infinite samples. Clean it first.")
        resampled = resample(np.ascontiguousarray(mono), sampling_rate, SAMPLING_RATE)
        return self._predict([resampled], [None])[0]

    def predict_file(self, path: str | Path) -> Prediction:
        """Recognise one file.

        Raises
        ------
        AudioError
            If it cannot be read.
        """
        return self._predict([load(path)], [Clip(str(path))])[0]

    def predict_files(self, paths: Iterable[str | Path]) -> list[Prediction | Failure]:
        """Recognise files; one that cannot be read becomes a `Failure` in its place."""
        return list(self.iter_clips(Clip(str(path)) for path in paths))

    def predict_folder(self, folder: str | Path) -> list[Prediction | Failure]:
        """Recognise every audio file below `folder`, in the order of their names."""
        return self.predict_files(audio_files(Path(folder)))

    def iter_clips(self, clips: Iterable[Clip]) -> Iterator[Prediction | Failure]:
        """Yield a result for each file, or part of one, in the given order.

        Holds a few of them in memory, never all.
        """
        iterator = iter(clips)
        while batch := list(islice(iterator, _MICRO_BATCH)):
            results: dict[int, Prediction | Failure] = {}
            waveforms: dict[int, np.ndarray] = {}
            for place, clip in enumerate(batch):
                try:
                    waveforms[place] = load(clip.path, start=clip.start, end=clip.end)
                except AudioError as error:
                    results[place] = Failure(clip.path, str(error))
            predictions = self._predict(
                list(waveforms.values()), [batch[place] for place in waveforms]
            )
            results.update(zip(waveforms, predictions, strict=True))
            yield from (results[place] for place in range(len(batch)))

    def _predict(
        self, waveforms: Sequence[np.ndarray], clips: Sequence[Clip | None]
    ) -> list[Prediction]:
        probabilities = np.zeros((len(waveforms), len(self.labels)))
        lengths = [len(waveform) for waveform in waveforms]
        for rows in batches_by_length(lengths, _BATCH_SECONDS * SAMPLING_RATE):
            chosen = [waveforms[row] for row in rows.tolist()]
            probabilities[rows] = self._system.predict_waveforms(chosen)
        return [
            Prediction(
                label=self.labels[int(row.argmax())],
                probabilities=dict(zip(self.labels, row.tolist(), strict=True)),
                duration=len(waveform) / SAMPLING_RATE,
                path=None if clip is None else clip.path,
                start=None if clip is None else clip.start,
            )
            for waveform, clip, row in zip(waveforms, clips, probabilities, strict=True)
        ]


def load_recognizer(
    model: str | Path,
    *,
    encoder: str | None = None,
    whisper: str | None = None,
    text_model: str | None = None,
) -> Recognizer:
    """Load a trained model.

    Parameters
    ----------
    model : str or Path
        A run folder of `koser train`, or a ``.pth`` from one.
    encoder, whisper, text_model : str, optional
        Where a pretrained model is now, if not where it was in training: a folder or a hub
        id. It must be the same one.

    Raises
    ------
    CheckpointError
        If there is no checkpoint of koser, or a model is given that it does not need.
    EncoderError
        If a model that it needs cannot be loaded, or is another one.
    """
    checkpoint = Checkpoint.read(find_checkpoint(Path(model)))
    for part, name in {"encoder": encoder, "whisper": whisper, "text": text_model}.items():
        if name is not None:
            checkpoint = checkpoint.with_model(part, name)
    system = system_class(checkpoint.system).from_checkpoint(checkpoint)
    return Recognizer(system, checkpoint.origin)
