"""What the server answers with, as OpenAPI describes it."""

from __future__ import annotations

from pydantic import BaseModel, Field

_PROBABILITIES = "Of every label; they add up to 1."
_DURATION = "Length of the sound in seconds."


class PredictionAnswer(BaseModel):
    """What the model makes of one sound."""

    label: str | None = Field(
        description="The most probable label; null where it does not reach `threshold`."
    )
    best: str = Field(description="The most probable label, whether it reaches `threshold` or not.")
    confidence: float = Field(description="Probability of `best`.", ge=0, le=1)
    probabilities: dict[str, float] = Field(description=_PROBABILITIES)
    duration: float = Field(description=_DURATION, gt=0)
    threshold: float = Field(description="As asked for, or as the server was started.", ge=0, le=1)
    share: float = Field(
        description="What the model gave to the labels asked for, before they were brought to 1.",
        ge=0,
        le=1,
    )


class ValuesAnswer(BaseModel):
    """What a model of valence and arousal makes of one sound."""

    valence: float = Field(description="In the units of the raters that the model learnt from.")
    arousal: float = Field(description="In the same units.")
    duration: float = Field(description=_DURATION, gt=0)


class CellAnswer(BaseModel):
    """A moment of a sound, and what it was worth."""

    start: float = Field(description="Seconds from the start of the part.", ge=0)
    end: float = Field(description="Seconds from the start of the part.", gt=0)
    evidence: float = Field(
        description="For `best`: what its log-odds lose without this moment, in nats; below 0, "
        "the moment spoke against it."
    )


class WordAnswer(BaseModel):
    """A word of the transcript, and what it was worth."""

    text: str = Field(description="As it was understood.")
    evidence: float = Field(description="For `best`, without the word; as of a moment.")


class ExplanationAnswer(PredictionAnswer):
    """What the model makes of a part of a sound, and what that rests on."""

    start: float = Field(description="Where the part begins in the sound, in seconds.", ge=0)
    cells: list[CellAnswer] = Field(description="The part from its start to its end.")
    words: list[WordAnswer] = Field(
        description="The transcript; empty where the model reads none, or believes none."
    )
    peaks: list[float] | None = Field(
        description="Outline of the part's waveform, if it was asked for.", default=None
    )


class SegmentAnswer(BaseModel):
    """A stretch of sound with one emotion."""

    start: float = Field(description="Seconds from the start of the recording.", ge=0)
    end: float = Field(description="Seconds from the start of the recording.", gt=0)
    label: str | None = Field(description="Null where no label reaches the threshold.")
    confidence: float = Field(description="The largest probability.", ge=0, le=1)
    probabilities: dict[str, float] = Field(description=_PROBABILITIES)


class TimelineAnswer(BaseModel):
    """What is heard in a recording, and when."""

    duration: float = Field(description="Length of the recording in seconds.", gt=0)
    labels: list[str] = Field(description="In the order of all probabilities.")
    speech: list[tuple[float, float]] = Field(
        description="Start and end of each region of speech in seconds."
    )
    segments: list[SegmentAnswer] = Field(description="Ascending, without overlap.")
    cells: list[SegmentAnswer] = Field(description="The curve that the segments were made from.")
    peaks: list[float] | None = Field(
        description="Outline of the waveform, if it was asked for.", default=None
    )
    enrolled_from: float | None = Field(
        description="Seconds from which the person's voice was known; null if it never was.",
        default=None,
    )


class EnrolmentAnswer(BaseModel):
    """What is held of a person's voice."""

    id: str = Field(description="For the parameter `enrolment` of what recognises.")
    n_utterances: int = Field(description="Sounds that were heard.", ge=1)
    seconds: float = Field(description="Their length in all.", gt=0)
    expires_in: float = Field(description="Seconds; from the last use on.", ge=0)


class ModelAnswer(BaseModel):
    """What this server serves."""

    labels: list[str] = Field(description="In the order of all probabilities.")
    sampling_rate: int = Field(description="Hz, of what the model hears.")
    threshold: float = Field(description="Where nothing else is asked for.", ge=0, le=1)
    is_synthetic: bool = Field(description="Trained on speech that a machine made.")
    max_predict_seconds: float = Field(description="Longest sound of a prediction.")
    max_timeline_seconds: float = Field(description="Longest sound of a timeline.")
    max_explain_seconds: float = Field(description="Longest part that is explained.")
    max_upload_bytes: int = Field(description="Largest upload.")
    can_enrol: bool = Field(description="Whether it adapts to a person: /v1/enrolments.")


class ValueModelAnswer(BaseModel):
    """What a server of valence and arousal serves."""

    dimensions: list[str] = Field(description="What is answered of a sound.")
    sampling_rate: int = Field(description="Hz, of what the model hears.")
    max_predict_seconds: float = Field(description="Longest sound of a prediction.")
    max_upload_bytes: int = Field(description="Largest upload.")


class StateAnswer(BaseModel):
    """Whether the server lives, or takes work."""

    status: str = Field(description="`ok`.", examples=["ok"])
