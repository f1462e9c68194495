"""What is kept of an encoder's states: statistics, frames, or the trunk's output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from koser.audio.augmentation import change_speed
from koser.audio.reading import SAMPLING_RATE
from koser.errors import EncoderError, StoreError
from koser.features.batching import batches_by_length
from koser.features.speech.encoder import (
    SpeechEncoder,
    frame_mask,
    pad_waveforms,
    windows_of,
)
from koser.features.speech.loading import LoadedEncoder

# Sound in one batch, in seconds. On a CPU a batch serves the caches: more is slower.
_CPU_BATCH_SECONDS = 10.0
_GPU_BATCH_SECONDS = 480.0


class EncoderExtractor(ABC):
    """A frozen encoder as a front-end; see `features.extraction.BatchExtractor`.

    Parameters
    ----------
    loaded : LoadedEncoder
        The encoder.
    dtype : str
        What the features are kept in. ``float16`` halves the store and changes a value
        by 5e-4 of itself at most.
    speed : float
        Speed at which the sound is heard.
    device : str
        Where it computes.
    """

    name = ""

    def __init__(
        self,
        loaded: LoadedEncoder,
        *,
        dtype: str = "float16",
        speed: float = 1.0,
        device: str = "cpu",
    ) -> None:
        self.loaded = loaded
        self.dtype = dtype
        self._speed = speed
        self._device = torch.device(device)

    @property
    def is_on_gpu(self) -> bool:
        """Whether it computes on a GPU."""
        return self._device.type == "cuda"

    @property
    def batch_seconds(self) -> float:
        """Sound in one batch, padding included."""
        return _GPU_BATCH_SECONDS if self.is_on_gpu else _CPU_BATCH_SECONDS

    def describe(self) -> dict[str, object]:
        """All that the result depends on beside the waveform."""
        return {"extractor": self.name, "speed": self._speed, **self.loaded.describe()}

    def extract(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Features of each waveform, the same as if it were alone.

        Raises
        ------
        EncoderError
            If a value is no finite number in any precision.
        StoreError
            If a value does not fit into `dtype`.
        """
        if self._speed != 1.0:
            waveforms = [change_speed(waveform, self._speed) for waveform in waveforms]
        options = self.loaded.options
        windows, owners = windows_of(waveforms, options.window_seconds)
        parts: list[list[torch.Tensor]] = [[] for _ in waveforms]
        # A long recording has more windows than one batch may hold.
        limit = round(self.batch_seconds * SAMPLING_RATE)
        lengths = np.array([len(window) for window in windows])
        for batch in batches_by_length(lengths, limit):
            computed = self._compute([windows[place] for place in batch])
            for place, part in zip(batch.tolist(), computed, strict=True):
                parts[owners[place]].append(part)
        return [self._keep(self._join(each)) for each in parts]

    def _compute(self, windows: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """What is kept of each window; a batch that does not fit into a GPU is halved."""
        encoder = self.loaded.encoder.to(self._device)
        waveforms, n_samples = pad_waveforms(windows)
        try:
            with torch.inference_mode():
                hidden, n_frames = encoder.embed(
                    waveforms.to(self._device), n_samples.to(self._device)
                )
                return self._reduce(encoder, hidden, n_frames)
        except torch.OutOfMemoryError as error:
            if len(windows) == 1:
                raise EncoderError(
                    f"The GPU's memory does not hold {len(windows[0]) / SAMPLING_RATE:.0f} s of "
                    f"sound in '{self.loaded.options.name}'. Lower --set encoder.window_seconds=10,"
                    f" or use --set train.device=cpu."
                ) from error
        half = len(windows) // 2
        return self._compute(windows[:half]) + self._compute(windows[half:])

    @abstractmethod
    def _reduce(
        self, encoder: SpeechEncoder, hidden: torch.Tensor, n_frames: torch.Tensor
    ) -> list[torch.Tensor]:
        """What is kept of each window, on the CPU, from state 0."""

    @abstractmethod
    def _join(self, parts: list[torch.Tensor]) -> torch.Tensor:
        """What is kept of an utterance, from that of its windows, which are equally long."""

    def _keep(self, features: torch.Tensor) -> np.ndarray:
        array = features.numpy()
        largest = float(np.abs(array).max())
        if not np.isfinite(largest):
            raise EncoderError(
                f"The weights of '{self.loaded.options.name}' are damaged, or this sound overflows "
                f"in them: its hidden states are NaN or infinite in float32 too. Download or save "
                f"the encoder again."
            )
        if not largest < float(np.finfo(self.dtype).max):
            raise StoreError(
                f"Hidden states of '{self.loaded.options.name}' reach {largest:.3g}, which "
                f"{self.dtype} cannot hold. Keep them in float32: --set keep=float32"
            )
        return array.astype(self.dtype)


class StatisticsExtractor(EncoderExtractor):
    """Mean and standard deviation over real frames, of every state.

    An utterance's features are an array of shape (n_states, 2, width).
    """

    name = "encoder-statistics"

    def _reduce(
        self, encoder: SpeechEncoder, hidden: torch.Tensor, n_frames: torch.Tensor
    ) -> list[torch.Tensor]:
        is_real = frame_mask(n_frames, hidden.shape[1])[:, :, None]
        n = n_frames[:, None, None]
        moments = []
        for state in [hidden, *encoder.run(hidden, n_frames)]:
            real = state.double() * is_real
            mean = real.sum(1, keepdim=True) / n
            square = (real.square().sum(1, keepdim=True)) / n
            moments.append(torch.cat([mean, square], 1))
        return list(torch.stack(moments, 1).cpu())

    def _join(self, parts: list[torch.Tensor]) -> torch.Tensor:
        mean, square = torch.stack(parts).mean(0).unbind(1)
        deviation = (square - mean.square()).clamp_min(0.0).sqrt()
        return torch.stack([mean, deviation], 1)


class FramesExtractor(EncoderExtractor):
    """All real frames, of some states.

    An utterance's features are an array of shape (n_states, width, n_frames), with the
    frames of its windows one after another.

    Parameters
    ----------
    loaded : LoadedEncoder
        The encoder.
    states : tuple[int, ...]
        Which states, ascending.
    **options
        As of `EncoderExtractor`.
    """

    name = "encoder-frames"

    def __init__(self, loaded: LoadedEncoder, states: tuple[int, ...], **options: Any) -> None:
        super().__init__(loaded, **options)
        self._states = states

    def describe(self) -> dict[str, object]:
        """All that the result depends on beside the waveform."""
        return {**super().describe(), "states": list(self._states)}

    def _reduce(
        self, encoder: SpeechEncoder, hidden: torch.Tensor, n_frames: torch.Tensor
    ) -> list[torch.Tensor]:
        states = [hidden, *encoder.run(hidden, n_frames, last=max(self._states))]
        kept = torch.stack([states[index] for index in self._states], 1).transpose(2, 3).cpu()
        return [each[:, :, :n] for each, n in zip(kept, n_frames.tolist(), strict=True)]

    def _join(self, parts: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat(parts, 2)


class TrunkExtractor(FramesExtractor):
    """The state at which training starts, window by window.

    An utterance's features are an array of shape (n_windows, width, n_frames of a window).
    """

    name = "encoder-trunk"

    def __init__(self, loaded: LoadedEncoder, state: int, **options: Any) -> None:
        super().__init__(loaded, (state,), **options)

    def _join(self, parts: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat(parts, 0)
