"""What systems do about several corpora in one training, beside hearing them equally often."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from koser.config import Config
from koser.models.adversary import AdversarialNetwork
from koser.training.batches import Table
from koser.training.corpora import AlignedTable, Alignment, Origins

logger = logging.getLogger(__name__)


class CorporaOptions(Config):
    """How differences between corpora, of no meaning to emotions, are kept out."""

    # "corpus": features of each corpus get the mean and spread of all, measured on its own train
    # part. What a recogniser hears of an unknown corpus stays as it is.
    normalise: Literal["all", "corpus"] = "all"
    # Strength of a gradient-reversed classifier of the corpus; 0 for none. 1 is the paper's.
    adversary: float = Field(0.0, ge=0)


def fit_alignment(
    options: CorporaOptions, table: Table, rows: np.ndarray, origins: Origins, *, has_frames: bool
) -> Alignment | None:
    """The alignment that `options` ask for, measured on the train part `rows`.

    Raises
    ------
    ConfigError
        If there is one corpus only.
    """
    if options.normalise == "all":
        return None
    origins.refuse_one("corpora.normalise = corpus")
    logger.warning(
        "Features are normalised per corpus (%s). The scores are of utterances whose corpus is "
        "known; a recording of which it is not is recognised without that.",
        ", ".join(origins.names),
    )
    return Alignment.fit(table, rows, origins, has_frames=has_frames)


def align(table: Table, origins: Origins, alignment: Alignment | None) -> Table:
    """A table under an alignment; itself where there is none."""
    return table if alignment is None else AlignedTable(table, origins, alignment)


@contextmanager
def in_training(
    network: nn.Module,
    representation: Callable[[], tuple[nn.Module, int]],
    options: CorporaOptions,
    origins: Origins,
    *,
    seed: int,
) -> Iterator[nn.Module]:
    """What is fitted in place of a network: itself, or itself beside an adversary.

    Parameters
    ----------
    network : nn.Module
        Maps inputs to logits.
    representation : Callable
        Says, for an adversary, the part of it whose input should not betray the corpus, and
        how many values that has.
    options : CorporaOptions
        The strength of the adversary.
    origins : Origins
        Corpora of all utterances.
    seed : int
        Of the adversary's start.

    Raises
    ------
    ConfigError
        If there is one corpus only.
    """
    if not options.adversary:
        yield network
        return
    origins.refuse_one(f"corpora.adversary = {options.adversary:g}")
    part, width = representation()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        opposed = AdversarialNetwork(
            network, part, width, origins=origins.ids, strength=options.adversary
        )
    try:
        yield opposed
    finally:
        opposed.release()
