"""The recognizer: a trained model, and any sound.

Labels, front-end and network come from the model alone, so it says the same however it was
loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from koser.audio.listing import audio_in
from koser.audio.reading import LOUDEST, SAMPLING_RATE, Clip, load_clip
from koser.audio.resampling import resample
from koser.engines.local import available_cores, iter_ahead
from koser.errors import AudioError, ConfigError
from koser.features.arrivals import Arrival, iter_arrivals
from koser.inference.batches import compute_rows, iter_results, read_arrival
from koser.inference.enrolment import hear_voice, load_speech
from koser.inference.models import (
    ProbabilityModel,
    ReadingModel,
    TorchModel,
    load_model,
    require_enrolling,
)
from koser.inference.prediction import Failure, Prediction, columns_of

if TYPE_CHECKING:
    from koser.features.voices import Voice


class Recognizer:
    """A trained model that maps sound to emotions.

    Parameters
    ----------
    model : ProbabilityModel
        The model.
    threshold : float
        Probability that a label needs; below it, the recognizer abstains. 0 for never.
    labels : Sequence[str], optional
        The labels to choose from, a subset of the model's in any order; their probabilities
        are brought to a sum of 1, and a prediction says what they had before. All by default.
    voice : Voice, optional
        Of whoever speaks all that is recognised, if something was heard of that person before.

    Raises
    ------
    ConfigError
        If `threshold` is not in [0, 1], fewer than two labels are left, or the model has no
        enrolment.
    LabelError
        If the model does not know one of `labels`.
    """

    sampling_rate = SAMPLING_RATE

    def __init__(
        self,
        model: ProbabilityModel,
        *,
        threshold: float = 0.0,
        labels: Sequence[str] | None = None,
        voice: Voice | None = None,
    ) -> None:
        if not 0.0 <= threshold <= 1.0:
            raise ConfigError(f"threshold = {threshold}: a probability lies between 0 and 1.")
        self._model = model if voice is None else require_enrolling(model)
        self.threshold, self.voice = threshold, voice
        self._columns = columns_of(labels, model.labels)
        self.labels = tuple(model.labels[column] for column in self._columns)

    @property
    def origin(self) -> dict[str, object]:
        """Where the model comes from: protocol, split, corpus, seed."""
        return dict(self._model.origin)

    @property
    def is_threaded(self) -> bool:
        """Whether it is fastest with one waveform at a time in each of several threads."""
        return self._model.is_threaded

    @property
    def is_on_gpu(self) -> bool:
        """Whether it computes on a GPU, which processes do not share."""
        return self._model.is_on_gpu

    def configured(
        self,
        *,
        threshold: float | None = None,
        labels: Sequence[str] | None = None,
        voice: Voice | None = None,
    ) -> Recognizer:
        """The same loaded model with another threshold, other labels, for another voice."""
        return Recognizer(
            self._model,
            threshold=self.threshold if threshold is None else threshold,
            labels=self.labels if labels is None else labels,
            voice=voice or self.voice,
        )

    def enrol(self, sounds: Sequence[str | Path | np.ndarray]) -> Recognizer:
        """A recognizer of the same model that has heard a person speak.

        Parameters
        ----------
        sounds : Sequence
            One utterance each: files, or waveforms [shape=(n_samples,)], float32, 16 kHz mono.
            They add to what was heard before; no sound is kept.

        Raises
        ------
        ConfigError
            If the model does not adapt to voices.
        AudioError
            If a file cannot be read; a `NoSpeechError` if nobody speaks in one of them.
        """
        return self.hear(load_speech(sound) for sound in sounds)

    def hear(self, waveforms: Iterable[np.ndarray]) -> Recognizer:
        """As `enrol`, of waveforms that are known to be speech: no detector is asked."""
        return self.configured(voice=hear_voice(self._model, waveforms, self.voice))

    def require_enrolling(self) -> None:
        """Raise a `ConfigError` unless its model adapts to a voice."""
        require_enrolling(self._model)

    def predict_waveforms(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Probabilities of waveforms, those of similar length computed together.

        Parameters
        ----------
        waveforms : Sequence[np.ndarray] [each shape=(n_samples,)]
            float32, 16 kHz mono, each of at least one sample.

        Returns
        -------
        np.ndarray [shape=(n_waveforms, n_labels)]
            Of `labels`; rows sum to 1.
        """
        return self._shares(waveforms)[0]

    def keep_transcripts(self, store_root: Path) -> None:
        """Keep what Whisper hears from now on, and hear no sound twice.

        Without this nothing that is recognised is kept: a transcript is somebody's words.

        Parameters
        ----------
        store_root : Path
            Folder of the stores; the cache of transcripts is in it.
        """
        if isinstance(self._model, TorchModel):
            self._model.keep_transcripts(store_root)

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[str | None]:
        """What the model believes to be said in each; None from one that reads no words."""
        if isinstance(self._model, ReadingModel):
            return self._model.transcribe(waveforms)
        return [None] * len(waveforms)

    def predict_spoken(
        self, waveforms: Sequence[np.ndarray], texts: Sequence[str | None]
    ) -> np.ndarray:
        """`predict_waveforms`, as if `texts` were said; a model that reads no words ignores them.

        Parameters
        ----------
        waveforms : Sequence[np.ndarray] [each shape=(n_samples,)]
            As of `predict_waveforms`.
        texts : Sequence[str or None]
            One for each; None for no text.
        """
        return self._spoken_shares(waveforms, texts)[0]

    def recognise_spoken(
        self, waveform: np.ndarray, text: str | None, *, clip: Clip | None = None
    ) -> Prediction:
        """What `predict_spoken` says of one waveform, and of the clip that it is."""
        rows, shares = self._spoken_shares([waveform], [text])
        seconds = len(waveform) / SAMPLING_RATE
        return self.to_prediction(rows[0], seconds, clip=clip, share=float(shares[0]))

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
            If it is empty, or holds NaN, infinity or absurdly large samples.
        """
        samples = np.asarray(waveform, dtype=np.float32)
        mono = samples.mean(axis=1) if samples.ndim == 2 else samples
        if mono.ndim != 1 or mono.size == 0:
            raise AudioError(
                f"A waveform of shape {samples.shape} holds no sound. "
                f"Give (n_samples,) or (n_samples, n_channels)."
            )
        if not (np.abs(mono) < LOUDEST).all():  # false for NaN too
            raise AudioError(
                "The waveform holds NaN or infinite samples, or absurdly large ones. Clean it."
            )
        resampled = resample(np.ascontiguousarray(mono), sampling_rate, SAMPLING_RATE)
        return self._predict([resampled], [None])[0]

    def predict_file(self, path: str | Path) -> Prediction:
        """Recognise one file.

        Raises
        ------
        AudioError
            If it cannot be read.
        """
        clip = Clip(str(path))
        return self._predict([load_clip(clip)], [clip])[0]

    def predict_files(self, paths: Iterable[str | Path]) -> list[Prediction | Failure]:
        """Recognise files; one that cannot be read becomes a `Failure` in its place."""
        return list(self.iter_files(paths))

    def predict_folder(self, folder: str | Path) -> list[Prediction | Failure]:
        """Recognise every audio file below `folder`, in the order of their names."""
        return list(self.iter_folder(folder))

    def iter_files(self, paths: Iterable[str | Path]) -> Iterator[Prediction | Failure]:
        """Yield what `predict_files` returns, each as soon as it is there."""
        return self.iter_clips(Clip(str(path)) for path in paths)

    def iter_folder(self, folder: str | Path) -> Iterator[Prediction | Failure]:
        """Yield what `predict_folder` returns, each as soon as it is there."""
        return self.iter_files(audio_in(folder))

    def iter_clips(
        self, clips: Iterable[Clip], *, n_threads: int | None = None
    ) -> Iterator[Prediction | Failure]:
        """Yield a result for each file, or part of one, in the given order.

        Files are read ahead in threads, and fetched ahead from object storage. A few of them
        are in memory, never all.

        Parameters
        ----------
        clips : Iterable[Clip]
            Read as needed.
        n_threads : int, optional
            That compute, if the model `is_threaded`; one per core by default.

        Raises
        ------
        StorageError
            If object storage cannot be used at all; one object that cannot be had is a `Failure`.
        """
        if self._model.is_threaded:
            n_threads = n_threads or available_cores()
            arrivals = iter_arrivals(clips)
            yield from iter_ahead(self._recognise_one, arrivals, n_threads=n_threads)
        else:
            yield from iter_results(clips, self._predict)

    def to_prediction(
        self,
        probabilities: np.ndarray,
        duration: float,
        *,
        clip: Clip | None = None,
        share: float = 1.0,
    ) -> Prediction:
        """Say what probabilities [shape=(n_labels,)] mean; see `Prediction`."""
        return Prediction(
            label=self.choose(probabilities),
            probabilities=dict(zip(self.labels, probabilities.tolist(), strict=True)),
            duration=duration,
            path=None if clip is None else clip.path,
            start=None if clip is None else clip.start,
            threshold=self.threshold,
            share=share,
        )

    def interpret(self, probabilities: np.ndarray, duration: float) -> Prediction:
        """Say what the model's own probabilities of a sound mean to this recognizer.

        Parameters
        ----------
        probabilities : np.ndarray [shape=(n_labels of the model,)]
            One row of the model's `predict_waveforms`.
        duration : float
            Of the sound, in seconds.
        """
        rows, shares = self._restrict(np.asarray(probabilities, np.float64)[None])
        return self.to_prediction(rows[0], duration, share=float(shares[0]))

    def choose(self, probabilities: np.ndarray) -> str | None:
        """The most probable label, or None where the recognizer abstains."""
        best = int(probabilities.argmax())
        return self.labels[best] if probabilities[best] >= self.threshold else None

    def _recognise_one(self, arrival: Arrival) -> Prediction | Failure:
        sound = read_arrival(arrival)
        return sound if isinstance(sound, Failure) else self._predict([sound], [arrival.clip])[0]

    def _predict(
        self, waveforms: Sequence[np.ndarray], clips: Sequence[Clip | None]
    ) -> list[Prediction]:
        probabilities, shares = self._shares(waveforms)
        return [
            self.to_prediction(row, len(waveform) / SAMPLING_RATE, clip=clip, share=share)
            for waveform, clip, row, share in zip(
                waveforms, clips, probabilities, shares.tolist(), strict=True
            )
        ]

    def _shares(self, waveforms: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities, and what their labels had of all [shape=(n_waveforms,)]."""
        return self._restrict(compute_rows(waveforms, self._compute, len(self._model.labels)))

    def _spoken_shares(
        self, waveforms: Sequence[np.ndarray], texts: Sequence[str | None]
    ) -> tuple[np.ndarray, np.ndarray]:
        if not isinstance(self._model, ReadingModel):
            return self._shares(waveforms)
        return self._restrict(self._model.predict_spoken(waveforms, texts))

    def _compute(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        if self.voice is None:
            return self._model.predict_waveforms(waveforms)
        model = require_enrolling(self._model)
        return model.predict_enrolled(waveforms, [self.voice] * len(waveforms))

    def _restrict(self, whole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if len(self._columns) == whole.shape[1]:
            return whole[:, self._columns], np.ones(len(whole))
        kept = whole[:, self._columns]
        shares = kept.sum(axis=1)
        # Where nothing is left of a probability, nothing is known of the labels that are.
        even = np.full(kept.shape[1], 1.0 / kept.shape[1])
        known = np.where(shares > 0, shares, 1.0)[:, None]
        return np.where(shares[:, None] > 0, kept / known, even), shares


def load_recognizer(
    model: str | Path,
    *,
    encoder: str | None = None,
    whisper: str | None = None,
    text_model: str | None = None,
    threshold: float = 0.0,
    labels: Sequence[str] | None = None,
) -> Recognizer:
    """Load a trained model.

    Parameters
    ----------
    model : str or Path
        A run folder of `koser train`, a ``.pth`` from one, or a ``.onnx`` of `koser export`.
        For the latter neither torch nor transformers is imported.
    encoder, whisper, text_model : str, optional
        Where a pretrained model is now, if not where it was in training: a folder or a hub
        id. It must be the same one.
    threshold, labels
        As of `Recognizer`.

    Raises
    ------
    CheckpointError
        If there is no model of koser, or a pretrained one is given that it does not need.
    EncoderError
        If a pretrained model that it needs cannot be loaded, or is another one.
    ConfigError, LabelError
        As `Recognizer`.
    """
    loaded = load_model(Path(model), encoder=encoder, whisper=whisper, text_model=text_model)
    return Recognizer(loaded, threshold=threshold, labels=labels)
