"""Networks on a pretrained encoder: a head on what is stored of it, or its last layers too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from koser.config import Config
from koser.errors import ConfigError
from koser.features.speech.encoder import SpeechEncoder
from koser.models.checkpoint import trained_state
from koser.models.heads import (
    FramePooling,
    HeadOptions,
    StateClassifier,
)


class TuneOptions(Config):
    """How much of the encoder is trained, and how fast."""

    # The last so many transformer layers; "transformer": every one of them; "all": the
    # front-end before them too.
    layers: int | Literal["transformer", "all"] = 4
    # Learning rate of the topmost layer as a share of the head's, and of each layer as a
    # share of the one above it [Howard & Ruder, "ULMFiT", ACL 2018].
    rate: float = Field(0.1, gt=0, le=1)
    rate_decay: float = Field(0.9, gt=0, le=1)
    # Rank of low-rank adapters that are trained instead of the layers themselves; 0 for
    # the layers themselves [Hu et al., "LoRA", ICLR 2022]. A front-end has none.
    lora_rank: int = Field(0, ge=0)
    # Share of the fine-tuned weights in the final ones; the rest is what training started
    # from. The mean of both is the more robust on speakers that training has not heard
    # [Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022].
    average: float = Field(0.5, gt=0, le=1)

    @property
    def trains_front_end(self) -> bool:
        """Whether the front-end learns too; adapters are in the transformer layers alone."""
        return self.layers == "all" and self.lora_rank == 0

    def first_state(self, n_layers: int) -> int:
        """The state at which training starts.

        Raises
        ------
        ConfigError
            If the encoder has fewer layers than are to be trained.
        """
        if isinstance(self.layers, str):
            return 0
        if not 1 <= self.layers <= n_layers:
            raise ConfigError(
                f"tune.layers = {self.layers}: the encoder has {n_layers} layers. Give 1 to "
                f'{n_layers}, "transformer" or "all".'
            )
        return n_layers - self.layers


def trained_states(head: HeadOptions, tune: TuneOptions, n_layers: int) -> list[int]:
    """The states that a fine-tuned head takes: those from the first trained layer's input on.

    Raises
    ------
    ConfigError
        If none of them is reached by training, or the encoder has no such state or layer.
    """
    first = tune.first_state(n_layers)
    states = [state for state in head.states(n_layers) if state >= first]
    # The trunk's output alone does not do: training would not reach the head's input.
    lowest = first if tune.trains_front_end else first + 1
    if not states or max(states) < lowest:
        raise ConfigError(
            f"head.layers = {head.layers} lies below the trained layers, which then would have "
            f"no effect. Give {lowest} or more, or train the system wav2vec2."
        )
    return states


class StatisticsHead(nn.Module):
    """A classifier on stored means and standard deviations of a frozen encoder's states.

    Parameters
    ----------
    n_states, width : int
        Of the stored statistics [shape=(n_states, 2, width)].
    n_labels : int
        Classes.
    options : HeadOptions
        The head; its pooling is ``mean`` or ``mean+std``.
    """

    def __init__(self, n_states: int, width: int, n_labels: int, options: HeadOptions) -> None:
        super().__init__()
        self._states = list(options.states(n_states - 1))
        self._n_statistics = 2 if options.pooling == "mean+std" else 1
        n_values = self._n_statistics * width
        self.classifier = StateClassifier(len(self._states), n_values, n_labels, options)

    def pool(self, statistics: torch.Tensor) -> torch.Tensor:
        """What the classifier takes [shape=(batch, n_states of the head, n_values)]."""
        return statistics[:, self._states, : self._n_statistics].flatten(2)

    def forward(self, statistics: torch.Tensor) -> torch.Tensor:
        """Logits [shape=(batch, n_labels)] of [shape=(batch, n_states, 2, width)]."""
        logits: torch.Tensor = self.classifier(self.pool(statistics))
        return logits

    def penalty(self) -> torch.Tensor:
        """What is added to the loss."""
        return self.classifier.penalty()


class FramesHead(nn.Module):
    """A classifier on stored frames of a frozen encoder, pooled with attention.

    Parameters
    ----------
    n_states, width : int
        Of the stored frames [shape=(n_states, width, n_frames)].
    n_labels : int
        Classes.
    options : HeadOptions
        The head.
    """

    def __init__(self, n_states: int, width: int, n_labels: int, options: HeadOptions) -> None:
        super().__init__()
        self.pooling = FramePooling(width, options.pooling)
        n_values = self.pooling.n_outputs
        self.classifier = StateClassifier(n_states, n_values, n_labels, options)

    def pool(self, frames: torch.Tensor, n_frames: torch.Tensor) -> torch.Tensor:
        """What the classifier takes [shape=(batch, n_states, n_values)]."""
        n_states = frames.shape[1]
        rows = frames.flatten(0, 1).transpose(1, 2)
        pooled: torch.Tensor = self.pooling(rows, n_frames.repeat_interleave(n_states))
        return pooled.view(-1, n_states, pooled.shape[1])

    def forward(self, frames: torch.Tensor, n_frames: torch.Tensor) -> torch.Tensor:
        """Logits of [shape=(batch, n_states, width, max_frames)]."""
        logits: torch.Tensor = self.classifier(self.pool(frames, n_frames))
        return logits

    def penalty(self) -> torch.Tensor:
        """What is added to the loss."""
        return self.classifier.penalty()


class FineTunedEncoder(nn.Module):
    """The last layers of an encoder, trained together with a head.

    The trunk below them is frozen, and not part of this module: neither moved to a GPU
    nor saved with it. `forward` starts from the trunk's output, which is computed once
    and stored; or, the plain way, from waveforms.

    Parameters
    ----------
    encoder : SpeechEncoder
        Pretrained; its last layers are trained in place.
    n_labels : int
        Classes.
    head : HeadOptions
        The head; `layers` counts as for the whole encoder.
    tune : TuneOptions
        What is trained.
    from_waveforms : bool
        Whether `forward` takes waveforms.
    at_once : int, optional
        Samples or frames, padding included, that the layers are given at once where nothing
        is learnt: a recording of an hour has more windows than the memory holds.

    Attributes
    ----------
    is_whole : bool
        Whether the front-end is trained too.
    """

    def __init__(
        self,
        encoder: SpeechEncoder,
        n_labels: int,
        head: HeadOptions,
        tune: TuneOptions,
        *,
        from_waveforms: bool,
        at_once: int | None = None,
    ) -> None:
        super().__init__()
        self.first = tune.first_state(encoder.n_layers)
        self.from_waveforms = from_waveforms
        self._tune = tune
        self._at_once = at_once
        self.is_whole = tune.trains_front_end
        self._encoder = [encoder]  # in a list, so that it does not become a submodule
        self.tuned = encoder if self.is_whole else nn.ModuleList(encoder.layers[self.first :])
        self.final_norm = None if self.is_whole else encoder.final_norm
        self._set_trained(encoder)
        states = trained_states(head, tune, encoder.n_layers)
        self.states = [state - self.first for state in states]  # counted from `first`
        self.pooling = FramePooling(encoder.width, head.pooling)
        n_values = self.pooling.n_outputs
        self.classifier = StateClassifier(len(self.states), n_values, n_labels, head)

    @property
    def encoder(self) -> SpeechEncoder:
        """The whole encoder, trunk and trained layers."""
        return self._encoder[0]

    def forward(
        self, sound: torch.Tensor, lengths: torch.Tensor, owners: torch.Tensor
    ) -> torch.Tensor:
        """Logits of utterances, each of one or several windows.

        Parameters
        ----------
        sound : torch.Tensor [shape=(n_windows, width, max_frames) or (n_windows, max_samples)]
            The trunk's output, or waveforms where `from_waveforms`.
        lengths : torch.Tensor [shape=(n_windows,)]
            Real frames or samples of each.
        owners : torch.Tensor [shape=(n_windows,)]
            Which utterance each window is of, ascending.

        Returns
        -------
        torch.Tensor [shape=(n_utterances, n_labels)]
        """
        logits: torch.Tensor = self.classifier(self.pool(sound, lengths, owners))
        return logits

    def pool(
        self, sound: torch.Tensor, lengths: torch.Tensor, owners: torch.Tensor
    ) -> torch.Tensor:
        """What the classifier takes [shape=(n_utterances, n_states, n_values)]; see `forward`."""
        states, n_frames = self._run_in_pieces(sound, lengths)
        pooled = []
        for state in states:
            joined, n_joined = join_windows(state, n_frames, owners)
            pooled.append(self.pooling(joined, n_joined))
        return torch.stack(pooled, 1)

    def _run_in_pieces(
        self, sound: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """As `_run`, of a few windows at a time where there are many and nothing is learnt."""
        n_windows, longest = len(sound), sound.shape[-1]
        if self._at_once is None or torch.is_grad_enabled() or n_windows <= 1:
            return self._run(sound, lengths)
        n_at_once = max(1, self._at_once // longest)
        if n_windows <= n_at_once:
            return self._run(sound, lengths)
        n_frames = self.encoder.count_frames(lengths) if self.from_waveforms else lengths
        shape = (n_windows, int(n_frames.max()), self.encoder.width)
        # Made once and filled: kept in pieces and put together they would be there twice.
        states = [sound.new_zeros(shape, dtype=torch.float32) for _ in self.states]
        for first in range(0, n_windows, n_at_once):
            piece = slice(first, first + n_at_once)
            found, _ = self._run(sound[piece], lengths[piece])
            for state, values in zip(states, found, strict=True):
                state[piece, : values.shape[1]] = values[:, : shape[1]]
        return states, n_frames

    def _run(
        self, sound: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The states that the head takes, window by window in float32, and their real frames."""
        if self.from_waveforms:
            hidden, n_frames = self.run_trunk(sound, lengths)
        else:
            hidden, n_frames = sound.transpose(1, 2), lengths
        states = [hidden, *self.encoder.run(hidden, n_frames, self.first)]
        return [states[index].float() for index in self.states], n_frames

    def penalty(self) -> torch.Tensor:
        """What is added to the loss."""
        return self.classifier.penalty()

    def run_trunk(
        self, waveforms: torch.Tensor, n_samples: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The state at which training starts, and the real frames, of waveforms."""
        if self.is_whole:
            return self.encoder.embed(waveforms, n_samples)
        self.encoder.to(waveforms.device)
        with torch.no_grad():
            hidden, n_frames = self.encoder.embed(waveforms, n_samples)
            if self.first:
                hidden = self.encoder.run(hidden, n_frames, last=self.first)[-1]
        return hidden, n_frames

    def parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """Trained parameters, and each one's share of the learning rate."""
        encoder, rate = self.encoder, self._tune.rate
        groups: list[tuple[list[nn.Parameter], float]] = []
        claimed: set[int] = set()

        def claim(module: nn.Module | None, share: float) -> None:
            parameters = [] if module is None else list(module.parameters())
            trained = [p for p in parameters if p.requires_grad and id(p) not in claimed]
            claimed.update(id(parameter) for parameter in trained)
            if trained:
                groups.append((trained, share))

        claim(encoder.final_norm if self.is_whole else self.final_norm, rate)
        for depth, layer in enumerate(reversed(encoder.layers[self.first :])):
            claim(layer, rate * self._tune.rate_decay**depth)
        if self.is_whole:
            claim(encoder, rate * self._tune.rate_decay**encoder.n_layers)
        claim(self, 1.0)
        return groups

    def _set_trained(self, encoder: SpeechEncoder) -> None:
        encoder.requires_grad_(False)
        if self._tune.lora_rank:
            self._add_adapters()
        else:
            self.tuned.requires_grad_(True)
            if self.final_norm is not None:
                self.final_norm.requires_grad_(True)

    def _add_adapters(self) -> None:
        from peft import LoraConfig, inject_adapter_in_model

        rank = self._tune.lora_rank
        names = {name.rsplit(".", 1)[-1] for name, _ in self.tuned.named_modules()}
        # WavLM multiplies with the weights of its attention directly, past any adapter.
        targets = (
            {"q_proj", "v_proj"}
            if "gru_rel_pos_linear" not in names
            else {
                "intermediate_dense",
                "output_dense",
            }
        )
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=sorted(targets))
        inject_adapter_in_model(config, self.tuned)


def join_windows(
    frames: torch.Tensor, n_frames: torch.Tensor, owners: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put the windows of each utterance one after another.

    Parameters
    ----------
    frames : torch.Tensor [shape=(n_windows, max_frames, width)]
        Frames of windows.
    n_frames : torch.Tensor [shape=(n_windows,)]
        Real frames of each.
    owners : torch.Tensor [shape=(n_windows,)]
        Which utterance each is of, ascending.

    Returns
    -------
    frames : torch.Tensor [shape=(n_utterances, max_frames of all windows, width)]
        Zero after an utterance's end where it had to be padded.
    n_frames : torch.Tensor [shape=(n_utterances,)]
        Real frames of each.
    """
    n_windows = torch.bincount(owners).tolist()
    if max(n_windows) == 1:
        return frames, n_frames
    lengths = n_frames.tolist()
    real = [window[:length] for window, length in zip(frames, lengths, strict=True)]
    joined, first = [], 0
    for count in n_windows:
        joined.append(torch.cat(real[first : first + count]))
        first += count
    total = torch.tensor([len(each) for each in joined], device=frames.device)
    return nn.utils.rnn.pad_sequence(joined, batch_first=True), total


def average_with(network: nn.Module, start: Mapping[str, torch.Tensor], share: float) -> None:
    """Move a trained network back towards where it started.

    Parameters
    ----------
    network : nn.Module
        Trained; changed in place.
    start : Mapping[str, torch.Tensor]
        Its `trained_state` before training.
    share : float in (0, 1]
        Of the trained weights in the result.
    """
    with torch.no_grad():
        for name, tensor in trained_state(network).items():
            if tensor.is_floating_point():
                tensor.lerp_(start[name].to(tensor.device), 1.0 - share)
