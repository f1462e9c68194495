"""The paths that recognise: a sound, a recording, a stream."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import FastAPI, Query, Request, WebSocket
from fastapi.responses import JSONResponse, Response

from koser.audio.reading import SAMPLING_RATE
from koser.inference.segments import TimelineOptions
from koser.inference.stream import EmotionStream
from koser.inference.writers import render_timeline
from koser.serving.answers import ModelAnswer, PredictionAnswer, TimelineAnswer
from koser.serving.problems import documented
from koser.serving.service import Service
from koser.serving.stream import StreamSession
from koser.serving.timelines import MAX_PEAKS, MEDIA_TYPES, compute_timeline, measure_peaks
from koser.serving.uploads import UPLOAD_BODY, UPLOAD_PROBLEMS

_PREDICT_PROBLEMS = (*UPLOAD_PROBLEMS, "enrolment-not-found")
_TIMELINE_RESPONSES = documented(*_PREDICT_PROBLEMS, "not-ready") | {
    200: {
        "content": {
            kind.partition(";")[0]: {"schema": {"type": "string"}}
            for format, kind in MEDIA_TYPES.items()
            if format != "json"
        }
    }
}

Threshold = Annotated[
    float | None,
    Query(ge=0, le=1, description="Probability below which `label` is null."),
]
Labels = Annotated[
    list[str] | None,
    Query(description="Only these labels, their probabilities brought to 1; repeat to name more."),
]
Peaks = Annotated[
    int,
    Query(ge=0, le=MAX_PEAKS, description="Points of the waveform's outline, in JSON; 0 for none."),
]
EnrolmentId = Annotated[
    str | None,
    Query(description="Of POST /v1/enrolments: whoever speaks. Others are not to be heard."),
]
EnrolFirst = Annotated[
    float,
    Query(
        ge=0,
        le=3600,
        description="Seconds of speech at the beginning by which the rest is adapted to whoever "
        "speaks; 0 for none.",
    ),
]


def add_recognition(app: FastAPI, service: Service) -> None:
    """Add the paths below ``/v1/``."""
    _add_predict(app, service)
    _add_timeline(app, service)
    _add_stream(app, service)

    @app.get(
        "/v1/model",
        tags=["recognition"],
        summary="Labels and limits",
        response_model=ModelAnswer,
        responses=documented("unauthorized"),
    )
    async def model() -> ModelAnswer:
        return service.describe_model()


def _add_predict(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/predict",
        tags=["recognition"],
        summary="Probabilities of every label for one sound",
        response_model=PredictionAnswer,
        responses=documented(*_PREDICT_PROBLEMS),
        openapi_extra=UPLOAD_BODY,
    )
    async def predict(
        request: Request,
        threshold: Threshold = None,
        labels: Labels = None,
        enrolment: EnrolmentId = None,
    ) -> Response:
        recognizer = service.configured(threshold, labels, enrolment)
        async with service.received(request, service.config.max_predict_seconds) as spool:
            waveform, duration = spool.read_waveform(), spool.duration
        probabilities = await service.predict(waveform, recognizer.voice)
        service.metrics.audio_seconds.labels("/v1/predict").inc(duration)
        values = recognizer.interpret(probabilities, duration).to_dict()
        return JSONResponse({name: values[name] for name in PredictionAnswer.model_fields})


def _add_timeline(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/timeline",
        tags=["recognition"],
        summary="Emotions over the time of a recording",
        response_model=TimelineAnswer,
        responses=_TIMELINE_RESPONSES,
        openapi_extra=UPLOAD_BODY,
    )
    async def timeline(
        request: Request,
        threshold: Threshold = None,
        labels: Labels = None,
        format: Annotated[
            Literal["json", "csv", "rttm", "srt", "vtt", "audacity", "textgrid"],
            Query(description="How the timeline is written."),
        ] = "json",
        peaks: Peaks = 0,
        enrolment: EnrolmentId = None,
        enrol_first: EnrolFirst = 0.0,
    ) -> Response:
        recognizer = service.configured(threshold, labels, enrolment, enrol_first)
        config = service.config
        with service.timeline_slot():
            async with service.received(request, config.max_timeline_seconds) as spool:
                made = await compute_timeline(
                    request,
                    spool,
                    recognizer,
                    TimelineOptions(enrol_first=enrol_first),
                    pool=service.pool,
                    timeout=config.timeline_timeout,
                )
                outline = await asyncio.to_thread(measure_peaks, spool, peaks) if peaks else None
        service.metrics.audio_seconds.labels("/v1/timeline").inc(made.duration)
        if format != "json":
            return Response(render_timeline(made, format), media_type=MEDIA_TYPES[format])
        values = {"enrolled_from": None, "peaks": outline, **made.to_dict()}
        return JSONResponse({name: values[name] for name in TimelineAnswer.model_fields})


def _add_stream(app: FastAPI, service: Service) -> None:
    @app.websocket("/v1/stream")
    async def stream(
        socket: WebSocket,
        sampling_rate: Annotated[int, Query(ge=8000, le=192_000)] = SAMPLING_RATE,
        threshold: Threshold = None,
        labels: Labels = None,
        enrolment: EnrolmentId = None,
        enrol_first: EnrolFirst = 0.0,
    ) -> None:
        recognizer = service.configured(threshold, labels, enrolment, enrol_first)
        stream = EmotionStream(
            recognizer, TimelineOptions(enrol_first=enrol_first), sampling_rate=sampling_rate
        )
        with service.stream_slot():
            session = StreamSession(socket, recognizer, stream, service.config, service.pool)
            try:
                await session.run(service.ending)
            finally:
                service.metrics.audio_seconds.labels("/v1/stream").inc(session.duration)
                socket.state.log.update(audio_seconds=round(session.duration, 3))
