"""What a model says of one piece of sound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from koser.audio.reading import Clip
from koser.errors import ConfigError, LabelError


@dataclass(frozen=True)
class Prediction:
    """What a recognizer makes of one piece of sound.

    Attributes
    ----------
    label : str or None
        The most probable label; None where its probability does not reach `threshold`: the
        recognizer abstains.
    probabilities : Mapping[str, float]
        Of every label, in the recognizer's order; they add up to 1.
    duration : float
        Length of the sound in seconds.
    path : str or None
        The file, where it was one.
    start : float or None
        Where in the file the sound starts, in seconds; None if it is the whole file.
    threshold : float
        Probability below which the recognizer abstains; 0 where it never does.
    share : float
        What the model gave to these labels together, before they were brought to 1; below 1
        only where labels of the model were left out.
    """

    label: str | None
    probabilities: Mapping[str, float]
    duration: float
    path: str | None = None
    start: float | None = None
    threshold: float = 0.0
    share: float = 1.0

    @property
    def best(self) -> str:
        """The most probable label, whether it is believed or not."""
        return max(self.probabilities, key=lambda label: self.probabilities[label])

    @property
    def confidence(self) -> float:
        """Probability of `best`."""
        return self.probabilities[self.best]

    def to_dict(self) -> dict[str, object]:
        """JSON values, as the command line and the server write them."""
        return {
            "path": self.path,
            "start": self.start,
            "duration": self.duration,
            "label": self.label,
            "best": self.best,
            "confidence": self.confidence,
            "threshold": self.threshold,
            "share": self.share,
            "probabilities": dict(self.probabilities),
        }

    def cells(self) -> dict[str, object]:
        """What a row of a table may say of it, by column; each label is one."""
        return {**self.to_dict(), **self.probabilities}


@dataclass(frozen=True)
class Values:
    """What a model of values makes of one piece of sound.

    Attributes
    ----------
    valence, arousal : float
        In the units of the raters whose values the model has learnt.
    duration : float
        Length of the sound in seconds.
    path : str or None
        The file, where it was one.
    start : float or None
        Where in the file the sound starts, in seconds; None if it is the whole file.
    """

    valence: float
    arousal: float
    duration: float
    path: str | None = None
    start: float | None = None

    def to_dict(self) -> dict[str, object]:
        """JSON values, as the command line and the server write them."""
        return {
            "path": self.path,
            "start": self.start,
            "duration": self.duration,
            "valence": self.valence,
            "arousal": self.arousal,
        }

    def cells(self) -> dict[str, object]:
        """What a row of a table says of it, by column."""
        return self.to_dict()


@dataclass(frozen=True)
class Failure:
    """A file, or a part of one, that could not be recognised, and why.

    Attributes
    ----------
    path, error : str
        The file, and one line.
    start : float or None
        Where in the file the part starts, in seconds; None if it is the whole file.
    duration : float or None
        Length of the part in seconds, as it was asked for; None where that is unknown, as it is
        of a whole file.
    may_pass : bool
        Whether its bytes could not be had, which says nothing of them and may be otherwise
        another time.
    """

    path: str
    error: str
    start: float | None = None
    duration: float | None = None
    may_pass: bool = field(default=False, compare=False)

    @classmethod
    def of_clip(cls, clip: Clip, error: str, *, may_pass: bool = False) -> Failure:
        """The failure of a clip, with the place and the length that it was to have."""
        # To the microsecond: what ends at 0.9 and starts at 0.6 lasts 0.3 s.
        duration = None if clip.end is None else round(clip.end - (clip.start or 0.0), 6)
        return cls(clip.path, error, clip.start, duration, may_pass)

    def to_dict(self) -> dict[str, object]:
        """JSON values, as the command line writes them."""
        return {
            "path": self.path,
            "start": self.start,
            "duration": self.duration,
            "error": self.error,
        }

    def cells(self) -> dict[str, object]:
        """What a row of a table says of it, by column."""
        return self.to_dict()


def columns_of(wanted: Sequence[str] | None, known: Sequence[str]) -> list[int]:
    """Places of the labels that are to be chosen from; all of them for None.

    Raises
    ------
    LabelError
        If one is not `known`.
    ConfigError
        If there are not two, or one is given twice.
    """
    if wanted is None:
        return list(range(len(known)))
    unknown = [label for label in wanted if label not in known]
    if unknown:
        raise LabelError(
            f"The model does not know {', '.join(map(repr, unknown))}. It knows: "
            f"{', '.join(known)}."
        )
    if len(set(wanted)) < 2 or len(set(wanted)) < len(wanted):
        raise ConfigError(
            f"labels = {', '.join(wanted) or 'none'}: give two or more, each once, to choose from."
        )
    # In the model's order, whatever the order they were asked for in.
    return [column for column, label in enumerate(known) if label in wanted]
