"""Networks of two modalities, sound and text, either of which may be missing.

Each modality is standardised by its own train part. What is missing is a vector that the
network learns: a zero would be the mean of what is there, and mean something.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from koser.config import Config
from koser.features.speech.encoder import frame_mask
from koser.models.heads import StateMapping, StateStandardizer

# Frames of sound that cross-attention takes as one: of 16 ms each (MFCC) 64 ms, of 20 ms (most
# encoders) 80 ms.
FRAME_STRIDE = 4


class FusionOptions(Config):
    """How sound and text come together."""

    # "concat": the document's, an MLP on both vectors side by side. "gated": a gate weighs
    # them [Arevalo et al., "Gated multimodal units", ICLR workshop 2017]. "cross_attention":
    # frames attend to tokens and tokens to frames [Tsai et al., "Multimodal transformer for
    # unaligned multimodal language sequences", ACL 2019].
    kind: Literal["concat", "gated", "cross_attention"] = "concat"
    hidden: tuple[int, int] = (256, 128)  # of "concat"; the document's
    # Of "gated" and "cross_attention", and of what an encoder's states become.
    width: int = Field(128, gt=0)
    n_heads: int = Field(4, gt=0)  # of "cross_attention"; must divide its width
    dropout: float = Field(0.3, ge=0, lt=1)

    @property
    def has_sequences(self) -> bool:
        """Whether it takes frames and tokens instead of one vector of each."""
        return self.kind == "cross_attention"

    @property
    def takes(self) -> Literal["pooled", "tokens"]:
        """What it takes of a text model."""
        return "tokens" if self.has_sequences else "pooled"


class Modality(nn.Module):
    """One modality's input: standardised where it is there, a learned vector where not.

    Parameters
    ----------
    n_values : int
        Values of a vector, a frame or a token.
    n_outputs : int, optional
        What becomes of them; as many if not given.
    """

    def __init__(self, n_values: int, n_outputs: int | None = None) -> None:
        super().__init__()
        self.n_outputs = n_values if n_outputs is None else n_outputs
        self.standardizer = StateStandardizer(n_values)
        self.missing = nn.Parameter(torch.zeros(self.n_outputs))
        nn.init.normal_(self.missing, std=0.1)

    def forward(self, values: torch.Tensor, is_present: torch.Tensor) -> torch.Tensor:
        """Fill in [shape=(batch, ..., n_values)] where `is_present` [shape=(batch,)] is not."""
        known = is_present.reshape(-1, *[1] * (values.dim() - 1))
        return torch.where(known, self.reduce(self.standardizer(values)), self.missing)

    def reduce(self, values: torch.Tensor) -> torch.Tensor:
        """What the fusion takes of standardised values: all."""
        return values


class EncodedModality(Modality):
    """The states of a speech encoder, reduced to one vector with learned weights.

    Parameters
    ----------
    n_states, width : int
        States, and values of each; they come one state after the other.
    n_outputs : int
        Values of the vector.
    """

    def __init__(self, n_states: int, width: int, n_outputs: int) -> None:
        super().__init__(n_states * width, n_outputs)
        self.states = StateMapping(n_states, width, n_outputs)
        self.states.spread()

    def reduce(self, values: torch.Tensor) -> torch.Tensor:
        """One vector of all states [shape=(..., n_outputs)]."""
        return self.states.combine(values)


class FusionNetwork(nn.Module):
    """What all fusions are: two `Modality` inputs, then logits.

    Parameters
    ----------
    audio : Modality
        What is done to a vector or a frame of sound.
    n_text : int
        Values of a vector or a token of text.
    """

    def __init__(self, audio: Modality, n_text: int) -> None:
        super().__init__()
        self.audio = audio
        self.text = Modality(n_text)


class ConcatFusion(FusionNetwork):
    """The document's: concat → Linear → GELU → Dropout → Linear → GELU → Dropout → Linear.

    Parameters
    ----------
    audio : Modality
        Of the document with 40 values.
    n_text, n_labels : int
        Sizes; of the document 768 and 7.
    options : FusionOptions
        Its hidden layers, 256 and 128, and dropout.
    """

    def __init__(self, audio: Modality, n_text: int, n_labels: int, options: FusionOptions) -> None:
        super().__init__(audio, n_text)
        first, second = options.hidden
        self.layers = nn.Sequential(
            nn.Linear(audio.n_outputs + n_text, first),
            nn.GELU(),
            nn.Dropout(options.dropout),
            nn.Linear(first, second),
            nn.GELU(),
            nn.Dropout(options.dropout),
            nn.Linear(second, n_labels),
        )

    def forward(
        self, audio: torch.Tensor, text: torch.Tensor, is_present: torch.Tensor
    ) -> torch.Tensor:
        """Logits of vectors.

        Parameters
        ----------
        audio, text : torch.Tensor [shape=(batch, n_values)]
            Anything where it is missing.
        is_present : torch.Tensor [shape=(batch, 2), dtype=bool]
            Whether there is sound, and text.
        """
        known_audio, known_text = is_present.unbind(1)
        both = torch.cat([self.audio(audio, known_audio), self.text(text, known_text)], 1)
        logits: torch.Tensor = self.layers(both)
        return logits


class GatedFusion(FusionNetwork):
    """A gated multimodal unit: for each hidden unit, how far sound counts and how far text.

    Parameters
    ----------
    audio : Modality
        What is done to sound.
    n_text, n_labels : int
        Sizes.
    options : FusionOptions
        Its width and dropout.
    """

    def __init__(self, audio: Modality, n_text: int, n_labels: int, options: FusionOptions) -> None:
        super().__init__(audio, n_text)
        self.dropout = nn.Dropout(options.dropout)
        self.audio_map = nn.Linear(audio.n_outputs, options.width)
        self.text_map = nn.Linear(n_text, options.width)
        self.gate = nn.Linear(audio.n_outputs + n_text, options.width)
        self.output = nn.Linear(options.width, n_labels)

    def forward(
        self, audio: torch.Tensor, text: torch.Tensor, is_present: torch.Tensor
    ) -> torch.Tensor:
        """Logits of vectors; see `ConcatFusion.forward`."""
        known_audio, known_text = is_present.unbind(1)
        heard = self.dropout(self.audio(audio, known_audio))
        read = self.dropout(self.text(text, known_text))
        gate = self.gate(torch.cat([heard, read], 1)).sigmoid()
        mixed = gate * self.audio_map(heard).tanh() + (1 - gate) * self.text_map(read).tanh()
        logits: torch.Tensor = self.output(self.dropout(mixed))
        return logits


class CrossAttentionFusion(FusionNetwork):
    """Frames attend to tokens, tokens to frames; each side is averaged, both are classified.

    Parameters
    ----------
    audio : Modality
        What is done to a frame.
    n_text, n_labels : int
        Values of a token, and classes.
    options : FusionOptions
        Its width, heads and dropout.
    """

    def __init__(self, audio: Modality, n_text: int, n_labels: int, options: FusionOptions) -> None:
        super().__init__(audio, n_text)
        self.audio_map = nn.Linear(audio.n_outputs, options.width)
        self.text_map = nn.Linear(n_text, options.width)
        self.to_text = _CrossAttention(options)
        self.to_audio = _CrossAttention(options)
        self.output = nn.Sequential(
            nn.Linear(2 * options.width, options.width),
            nn.GELU(),
            nn.Dropout(options.dropout),
            nn.Linear(options.width, n_labels),
        )

    def forward(
        self,
        frames: torch.Tensor,
        n_frames: torch.Tensor,
        tokens: torch.Tensor,
        n_tokens: torch.Tensor,
        is_present: torch.Tensor,
    ) -> torch.Tensor:
        """Logits of sequences.

        Parameters
        ----------
        frames : torch.Tensor [shape=(batch, n_values, max_frames)]
            Sound over time; zero after an utterance's end.
        n_frames : torch.Tensor [shape=(batch,)]
            Real frames of each, at least one; what is missing has one that counts for nothing.
        tokens, n_tokens : torch.Tensor
            The same of text.
        is_present : torch.Tensor [shape=(batch, 2), dtype=bool]
            Whether there is sound, and text.
        """
        known_audio, known_text = is_present.unbind(1)
        frames, n_frames = _every(frames, n_frames, FRAME_STRIDE)
        heard = self.audio_map(self.audio(frames.transpose(1, 2), known_audio))
        read = self.text_map(self.text(tokens.transpose(1, 2), known_text))
        is_frame = frame_mask(n_frames, heard.shape[1])
        is_token = frame_mask(n_tokens, read.shape[1])
        sides = [
            _mean(self.to_text(heard, read, is_token), is_frame),
            _mean(self.to_audio(read, heard, is_frame), is_token),
        ]
        logits: torch.Tensor = self.output(torch.cat(sides, 1))
        return logits


class _CrossAttention(nn.Module):
    """One sequence attends to another: attention, then a feed-forward layer, both residual."""

    def __init__(self, options: FusionOptions) -> None:
        super().__init__()
        width = options.width
        self.attention = nn.MultiheadAttention(
            width, options.n_heads, dropout=options.dropout, batch_first=True
        )
        self.attention_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Dropout(options.dropout),
            nn.Linear(2 * width, width),
            nn.Dropout(options.dropout),
        )
        self.output_norm = nn.LayerNorm(width)

    def forward(
        self, own: torch.Tensor, other: torch.Tensor, is_real: torch.Tensor
    ) -> torch.Tensor:
        attended, _ = self.attention(own, other, other, key_padding_mask=~is_real)
        mixed = self.attention_norm(own + attended)
        result: torch.Tensor = self.output_norm(mixed + self.feed_forward(mixed))
        return result


def make_fusion(
    options: FusionOptions, *, audio_shape: tuple[int, ...], n_text: int, n_labels: int
) -> FusionNetwork:
    """The network of the kind that `options` name.

    Parameters
    ----------
    options : FusionOptions
        Which, and its sizes.
    audio_shape : tuple[int, ...]
        ``(n_values,)`` of a vector or a frame of sound; ``(n_states, width)`` where it comes
        from an encoder, whose states become a vector of ``options.width`` values.
    n_text, n_labels : int
        Values of a vector or a token of text, and classes.
    """
    kinds = {
        "concat": ConcatFusion,
        "gated": GatedFusion,
        "cross_attention": CrossAttentionFusion,
    }
    if len(audio_shape) == 1:
        audio = Modality(*audio_shape)
    else:
        n_states, width = audio_shape
        audio = EncodedModality(n_states, width, options.width)
    network: FusionNetwork = kinds[options.kind](audio, n_text, n_labels, options)
    return network


def _every(
    frames: torch.Tensor, n_frames: torch.Tensor, stride: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Means of `stride` neighbouring frames, over real ones only."""
    n_groups = -(-frames.shape[2] // stride)
    spare = n_groups * stride - frames.shape[2]
    is_real = functional.pad(frame_mask(n_frames, frames.shape[2]), (0, spare))
    real = functional.pad(frames, (0, spare)).masked_fill(~is_real[:, None], 0.0)
    counts = is_real.reshape(len(frames), 1, n_groups, stride).sum(3)
    sums = real.reshape(len(frames), -1, n_groups, stride).sum(3)
    n_left = torch.div(n_frames + stride - 1, stride, rounding_mode="floor")
    return sums / counts.clamp_min(1), n_left


def _mean(states: torch.Tensor, is_real: torch.Tensor) -> torch.Tensor:
    """Mean over real places [shape=(batch, width)] of [shape=(batch, n_places, width)]."""
    real = states.masked_fill(~is_real[:, :, None], 0.0)
    mean: torch.Tensor = real.sum(1) / is_real.sum(1, keepdim=True)
    return mean
