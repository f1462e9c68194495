"""Whisper's encoder on as much sound as there is, instead of on 30 s.

Whisper pads every clip to 30 s, so that a 4-second clip costs seven times what it needs
[1]_. Here the encoder sees the clip; its log-Mel spectrogram, convolutions and positions
are those of the original, and attention is over real frames.

References
----------
.. [1] Radford et al., "Robust speech recognition via large-scale weak supervision",
   ICML 2023.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from torch.nn import functional

from koser.features.spectrum import MatmulSpectrum
from koser.features.speech.encoder import SpeechEncoder, larger

N_FFT = 400
HOP_LENGTH = 160
# Mel frames that the stride of the second convolution makes one of.
_STRIDE = 2
_SAMPLES_PER_FRAME = HOP_LENGTH * _STRIDE


class WhisperEncoder(SpeechEncoder):
    """The encoder half of a Whisper.

    Parameters
    ----------
    encoder : torch.nn.Module
        ``WhisperModel(...).encoder`` of `transformers`.
    mel_filters : np.ndarray [shape=(n_fft // 2 + 1, n_mels)]
        Of its feature extractor.
    """

    mel_filters: torch.Tensor
    window: torch.Tensor
    positions: torch.Tensor

    def __init__(self, encoder: Any, mel_filters: np.ndarray) -> None:
        super().__init__(encoder.layers, encoder.config.d_model, encoder.layer_norm)
        self.conv1 = encoder.conv1
        self.conv2 = encoder.conv2
        # Sinusoids, not learned: a buffer, so that fine-tuning leaves them alone.
        self.register_buffer("positions", encoder.embed_positions.weight.detach())
        self.max_seconds = len(self.positions) * _SAMPLES_PER_FRAME / 16_000
        filters = torch.as_tensor(np.ascontiguousarray(mel_filters.T), dtype=torch.float32)
        self.register_buffer("mel_filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)
        self._spectrum: MatmulSpectrum | None = None  # in place of torch's; see `exportable`

    def count_frames(self, n_samples: torch.Tensor) -> torch.Tensor:
        """Real frames: 50 a second, the last one perhaps not full."""
        return torch.div(
            n_samples + _SAMPLES_PER_FRAME - 1, _SAMPLES_PER_FRAME, rounding_mode="floor"
        )

    def exportable(self) -> Self:
        """A copy whose spectrum is made of operations that ONNX has."""
        copied = super().exportable()
        copied._spectrum = MatmulSpectrum(N_FFT, HOP_LENGTH, self.window.numpy())
        return copied

    def embed_windows(
        self, waveforms: torch.Tensor, n_samples: torch.Tensor | None
    ) -> torch.Tensor:
        """State 0 of windows side by side; see `SpeechEncoder.embed`."""
        if n_samples is None:
            max_frames = (waveforms.shape[1] + _SAMPLES_PER_FRAME - 1) // _SAMPLES_PER_FRAME
        else:
            max_frames = int(self.count_frames(n_samples).max())
        mel = self._log_mel(waveforms, max_frames)
        hidden = functional.gelu(self.conv1(mel))
        hidden = functional.gelu(self.conv2(hidden))[:, :, :max_frames].transpose(1, 2)
        return hidden + self.positions[:max_frames]

    def _log_mel(self, waveforms: torch.Tensor, max_frames: int) -> torch.Tensor:
        """The log-Mel spectrogram, with one frame's worth of silence after the longest window.

        The silence is there so that the last real frame's convolutions see the same
        after it whether a window is alone or padded: silence, as in the original. Where
        the original ends, after 30 s, this does too.
        """
        n_mel_frames = -larger(-(max_frames + 1), -len(self.positions)) * _STRIDE
        n_needed = n_mel_frames * HOP_LENGTH
        padded = functional.pad(waveforms.float(), (0, n_needed - waveforms.shape[1]))
        power = self._power(padded)[..., :n_mel_frames]
        mel = (self.mel_filters @ power).clamp_min(1e-10).log10()
        loudest = mel.amax(dim=(1, 2), keepdim=True)
        return (torch.maximum(mel, loudest - 8.0) + 4.0) / 4.0

    def _power(self, padded: torch.Tensor) -> torch.Tensor:
        # At either end the transform mirrors the sound: at this one silence, but for a full 30 s.
        if self._spectrum is not None:
            mirrored = functional.pad(padded, (N_FFT // 2, N_FFT // 2), mode="reflect")
            power: torch.Tensor = self._spectrum(mirrored).transpose(1, 2)
            return power
        return (
            torch.stft(padded, N_FFT, HOP_LENGTH, window=self.window, return_complex=True)
            .abs()
            .square()
        )
