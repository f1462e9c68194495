"""How long and how fast to learn, and the schedule of the learning rate."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from koser.config import Config

# "auto": bf16 on a GPU that computes in it, float32 elsewhere.
Precision = Literal["auto", "float32", "bf16"]
# What an utterance should be recognised as: its label; the distribution of its raters' votes;
# or, "auto", the distribution where the manifest keeps one (koser prepare --labels soft).
Target = Literal["auto", "label", "votes"]
# Of what an epoch hears equally much: corpora, or the labels of each corpus.
Balance = Literal["none", "corpus", "corpus+label"]


class TrainOptions(Config):
    """What every training has; how large a batch is, each system says itself."""

    # What to try where memory ends, if it is not what the fields that begin with ``batch_`` say.
    if_memory_ends: ClassVar[str | None] = None

    epochs: int = Field(60, gt=0)  # at most; exactly so many where there is no val part
    # Epochs without a better val UAR before stopping. Half of all, because most of the gain
    # comes late, when the learning rate falls.
    patience: int = Field(30, gt=0)
    accumulate: int = Field(1, gt=0)  # batches a step: as one large batch, in less memory
    learning_rate: float = Field(4e-3, gt=0)  # peak
    warmup: float = Field(0.2, ge=0, lt=1)  # share of all steps with a rising learning rate
    weight_decay: float = Field(1e-2, ge=0)
    clip_norm: float = Field(5.0, gt=0)  # largest norm of the gradient
    target: Target = "auto"
    # Share of a target, label or distribution, that is spread over all classes.
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    balance: Balance = "none"  # with several corpora: which of them are heard equally often
    class_weights: bool = True  # weigh a class by the inverse of its share of the train part
    # Where dropout and SpecAugment come from. "step": torch's generator, in the order of the
    # batches. "row": each utterance's own address (seed, epoch, row), so that batches and the
    # number of processes do not matter; slower where there is dropout within an encoder.
    draws: Literal["step", "row"] = "step"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Precision = "auto"  # of the network's products; sums and loss stay float32
    # Of torch on a CPU: a setting, not what the machine has, because a result's last digits
    # depend on it; 0 for as many as are free.
    n_threads: int = Field(1, ge=0)


class TrainedConfig(Config):
    """Settings of a system, of which training is a part."""

    train: TrainOptions


def learning_rate_at(progress: float, options: TrainOptions) -> float:
    """Learning rate after a share of all steps: a linear rise, then half a cosine to zero.

    Examples
    --------
    >>> learning_rate_at(0.1, TrainOptions(learning_rate=1e-3, warmup=0.1))
    0.001
    """
    if progress < options.warmup:
        return options.learning_rate * progress / options.warmup
    rest = (progress - options.warmup) / (1.0 - options.warmup)
    return float(options.learning_rate * 0.5 * (1.0 + np.cos(np.pi * rest)))
