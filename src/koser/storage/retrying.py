"""Calls of object storage, repeated while what is wrong with them may pass."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from koser.errors import KoserError
from koser.storage.faults import find_fault

ResultT = TypeVar("ResultT")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retries:
    """How often, and how soon.

    Before attempt k + 1 a random time is waited, even between 0 and ``min(longest, first *
    2**k)``: exponential back-off with full jitter [1]_, so that many clients that were sent
    away together do not come back together.

    Attributes
    ----------
    n_attempts : int
        In all.
    first, longest : float
        Seconds.

    References
    ----------
    .. [1] Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    n_attempts: int = 8
    first: float = 0.1
    longest: float = 5.0

    def wait(self, n_failed: int) -> float:
        """Seconds to wait after so many failed attempts."""
        # Not seeded: clients that draw the same times would meet again.
        return random.uniform(0.0, min(self.longest, self.first * 2 ** (n_failed - 1)))


RETRIES = Retries()
FEW = Retries(n_attempts=3)  # of what consists of many requests, each of them tried often


class TruncatedError(OSError):
    """Fewer or more bytes came than an object has."""


def retrying(
    call: Callable[[], ResultT], url: str, what: str, *, retries: Retries = RETRIES
) -> ResultT:
    """``call()``, again as long as its failure may pass.

    Parameters
    ----------
    call : Callable
        Reads or writes something of `url`; done twice it must do the same as once.
    url : str
        For messages.
    what : str
        For messages: ``"read"``, ``"written"`` or ``"listed"``.
    retries : Retries
        How often.

    Raises
    ------
    StorageError
        If storage cannot be used: no driver, credentials, bucket, network.
    ObjectError
        If this object cannot be had.
    """
    n_failed = 0
    while True:
        try:
            return call()
        except KoserError:
            raise
        except Exception as error:  # drivers raise what they like; raised again below
            n_failed += 1
            fault = find_fault(error)
            if not fault.is_repeated or n_failed >= retries.n_attempts:
                raise fault.to_error(url, what, n_failed) from error
        seconds = retries.wait(n_failed)
        logger.debug("%s: %s; again in %.1f s", url, fault.reason, seconds)
        time.sleep(seconds)
