"""How many threads torch computes with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_threads(n_threads: int) -> Iterator[None]:
    """Let torch use `n_threads` within the block; 0 leaves it as it is.

    koser asks for one wherever a clip or a small network is computed. The sums of more
    threads differ in their last digits, so a result would depend on the machine; and
    threads that wait for each other on busy cores cost ten times what they save.
    """
    before = torch.get_num_threads()
    if n_threads:
        torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
