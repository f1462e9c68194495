"""Stretches of a recording with one emotion, and how they are found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import Field, model_validator

from koser.audio.activity import ActivityOptions
from koser.config import Config


class TimelineOptions(Config):
    """How a long recording is cut up. All times are seconds."""

    # Speech is recognised in windows: as long as what the model learned from, roughly. Speech
    # that is shorter is recognised as a whole.
    window: float = Field(4.0, gt=0)
    hop: float = Field(1.0, gt=0)  # from the start of one window to that of the next
    # Longest stretch of one emotion that is reported as one, so that a final result is never
    # far away.
    max_segment: float = Field(30.0, gt=0)
    # How often a stream says what it hears before that is final; 0 for never.
    partial_every: float = Field(0.5, ge=0)
    # Seconds of speech at the beginning that a model with speaker enrolment hears of whoever
    # speaks, to recognise what follows by; 0 for none. What was said before stays.
    enrol_first: float = Field(0.0, ge=0)
    activity: ActivityOptions = ActivityOptions()

    @model_validator(mode="after")
    def _check(self) -> TimelineOptions:
        if self.hop > self.window:
            raise ValueError(
                f"hop = {self.hop:g} s exceeds window = {self.window:g} s: what lies between "
                f"windows would not be heard"
            )
        if self.max_segment < self.hop:
            raise ValueError(f"max_segment = {self.max_segment:g} s is less than hop")
        return self


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording, and the emotion heard in it.

    Attributes
    ----------
    start, end : float
        Seconds from the start of the recording.
    label : str or None
        The most probable label; None where the recognizer abstains.
    probabilities : Mapping[str, float]
        Of every label, in the recognizer's order: the mean over the stretch.
    speaker : str or None
        Who speaks, where that was asked for.
    """

    start: float
    end: float
    label: str | None
    probabilities: Mapping[str, float]
    speaker: str | None = None

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.end - self.start

    @property
    def confidence(self) -> float:
        """The largest probability."""
        return max(self.probabilities.values())

    def to_dict(self) -> dict[str, object]:
        """JSON values, as the command line and the server write them."""
        values: dict[str, object] = {
            "start": self.start,
            "end": self.end,
            "label": self.label,
            "confidence": self.confidence,
            "probabilities": dict(self.probabilities),
        }
        return values if self.speaker is None else {**values, "speaker": self.speaker}
