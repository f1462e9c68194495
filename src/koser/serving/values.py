"""A model of `koser regress` behind HTTP: valence and arousal of one sound."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from koser.audio.reading import SAMPLING_RATE
from koser.errors import ConfigError
from koser.evaluation.dimensions import DIMENSIONS
from koser.inference.values import Regressor
from koser.serving.answers import ValueModelAnswer, ValuesAnswer
from koser.serving.problems import ProblemError, documented
from koser.serving.settings import ServeConfig
from koser.serving.sound_service import SoundService
from koser.serving.uploads import UPLOAD_BODY, UPLOAD_PROBLEMS

# What /v1/predict takes of a model of labels: to ignore it would be to answer something else.
_OF_LABELS = ("threshold", "labels", "enrolment")


class ValueService(SoundService):
    """What serves one model of valence and arousal.

    Parameters
    ----------
    regressor : Regressor
        The model.
    config : ServeConfig
        The limits.

    Raises
    ------
    ConfigError
        If a threshold is set: values have none.
    """

    def __init__(self, regressor: Regressor, config: ServeConfig) -> None:
        if config.threshold:
            raise ConfigError(
                f"threshold = {config.threshold:g}: for models of labels, and this is one of "
                f"valence and arousal. Leave it out."
            )
        super().__init__(regressor.predict_waveforms, config)
        self.regressor = regressor


def add_values(app: FastAPI, service: ValueService) -> None:
    """Add the paths below ``/v1/``."""

    @app.post(
        "/v1/predict",
        tags=["recognition"],
        summary="Valence and arousal of one sound",
        response_model=ValuesAnswer,
        responses=documented(*UPLOAD_PROBLEMS),
        openapi_extra=UPLOAD_BODY,
    )
    async def predict(request: Request) -> Response:
        _refuse_label_options(request)
        config = service.config
        async with service.received(request, config.max_predict_seconds) as spool:
            waveform, duration = spool.read_waveform(), spool.duration
        row = await service.model.predict(waveform, config.predict_timeout)
        service.metrics.audio_seconds.labels("/v1/predict").inc(duration)
        values = service.regressor.interpret(row, duration).to_dict()
        return JSONResponse({name: values[name] for name in ValuesAnswer.model_fields})

    @app.get(
        "/v1/model",
        tags=["recognition"],
        summary="What is answered, and limits",
        response_model=ValueModelAnswer,
        responses=documented("unauthorized"),
    )
    async def model() -> ValueModelAnswer:
        return ValueModelAnswer(
            dimensions=list(DIMENSIONS),
            sampling_rate=SAMPLING_RATE,
            max_predict_seconds=service.config.max_predict_seconds,
            max_upload_bytes=service.config.max_upload_bytes,
        )


def _refuse_label_options(request: Request) -> None:
    given = [name for name in _OF_LABELS if name in request.query_params]
    if given:
        raise ProblemError(
            "invalid-request",
            f"{', '.join(given)}: for models of labels, and this is one of valence and arousal. "
            f"Leave {'it' if len(given) == 1 else 'them'} out.",
        )
