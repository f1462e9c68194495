"""Voices that the server has heard: statistics under an id, for a while, never the sound."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from koser.features.voices import SpeakerPrior, Voice
from koser.inference.models import EnrollingModel, ProbabilityModel
from koser.serving.answers import EnrolmentAnswer
from koser.serving.metrics import Metrics
from koser.serving.problems import ProblemError
from koser.serving.settings import ServeConfig


@dataclass(frozen=True, eq=False)
class _Held:
    voice: Voice
    seconds: float  # of sound that was heard
    last_used: float


class HeldVoices:
    """The voices that are held, and how many that may be.

    Parameters
    ----------
    model : ProbabilityModel
        That they are of.
    config : ServeConfig
        The limits.
    metrics : Metrics
        Where they are counted.
    clock : Callable
        Seconds that only grow.
    """

    def __init__(
        self,
        model: ProbabilityModel,
        config: ServeConfig,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._prior = model.prior if isinstance(model, EnrollingModel) else None
        self._config = config
        self._metrics = metrics
        self._clock = clock
        self._held: OrderedDict[str, _Held] = OrderedDict()  # the longest unused first
        self._n_bytes = 0

    def check_room(self) -> None:
        """Refuse one more.

        Raises
        ------
        ProblemError
            If as many as may be are held.
        """
        self._forget_expired()
        limit = self._config.max_enrolments
        if len(self._held) >= limit:
            raise ProblemError(
                "busy",
                f"{limit} enrolments are held. Delete those that are no longer needed, or try "
                f"again later.",
                {"Retry-After": str(self._config.retry_after)},
            )

    def check_more(self, identity: str) -> None:
        """Refuse to hear more of a voice.

        Raises
        ------
        ProblemError
            If it is not held, or enough was heard of it.
        """
        limit = self._config.max_enrolment_utterances
        if self._find(identity).voice.n_utterances >= limit:
            raise ProblemError(
                "invalid-request",
                f"{limit} sounds were heard for this enrolment, which is all it takes. Use it.",
            )

    def add(self, summary: np.ndarray, seconds: float, identity: str | None = None) -> str:
        """Hear one more sound of a voice, or the first one; return its id.

        Raises
        ------
        ProblemError
            If it is not held any more, or there is no room for it.
        """
        if identity is None:
            self.check_room()
            identity, known = secrets.token_urlsafe(16), None
        else:
            self.check_more(identity)
            known = self._find(identity)
        prior = self._known_prior()
        made = _Held(
            prior.hear([summary], None if known is None else known.voice),
            seconds + (0.0 if known is None else known.seconds),
            self._clock(),
        )
        self._held.pop(identity, None)
        self._held[identity] = made
        self._count(made.voice.n_bytes - (0 if known is None else known.voice.n_bytes))
        return identity

    def use(self, identity: str) -> Voice:
        """A voice that is held, for a while longer from now on.

        Raises
        ------
        ProblemError
            If it is not.
        """
        found = self._find(identity)
        self._held[identity] = replace(found, last_used=self._clock())
        self._held.move_to_end(identity)
        return found.voice

    def remove(self, identity: str) -> None:
        """Forget a voice.

        Raises
        ------
        ProblemError
            If it is not held.
        """
        found = self._find(identity)
        del self._held[identity]
        self._count(-found.voice.n_bytes)

    def describe(self, identity: str) -> EnrolmentAnswer:
        """What a client is told of a voice that is held."""
        found = self._find(identity)
        left = found.last_used + self._config.enrolment_seconds - self._clock()
        return EnrolmentAnswer(
            id=identity,
            n_utterances=found.voice.n_utterances,
            seconds=found.seconds,
            expires_in=max(left, 0.0),
        )

    def _known_prior(self) -> SpeakerPrior:
        if self._prior is None:
            raise ProblemError("invalid-request", "The model of this server does not adapt.")
        return self._prior

    def _find(self, identity: str) -> _Held:
        self._forget_expired()
        if identity not in self._held:
            raise ProblemError(
                "enrolment-not-found",
                f"No enrolment '{identity[:40]}' is held: it was deleted, expired after "
                f"{self._config.enrolment_seconds:g} s without use, or never was. Enrol again: "
                f"POST /v1/enrolments",
            )
        return self._held[identity]

    def _forget_expired(self) -> None:
        oldest = self._clock() - self._config.enrolment_seconds
        while self._held and next(iter(self._held.values())).last_used < oldest:
            _, expired = self._held.popitem(last=False)
            self._count(-expired.voice.n_bytes)

    def _count(self, n_bytes: int) -> None:
        self._n_bytes += n_bytes
        self._metrics.enrolments.set(len(self._held))
        self._metrics.enrolment_bytes.set(self._n_bytes)
