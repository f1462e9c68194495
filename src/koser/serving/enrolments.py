"""The paths of speaker enrolment: hear a person, hear more, forget."""

from __future__ import annotations

import asyncio
from typing import Annotated

import numpy as np
from fastapi import FastAPI, Path, Request
from fastapi.responses import JSONResponse, Response

from koser.errors import KoserError, NoSpeechError
from koser.inference.enrolment import require_speech
from koser.serving.answers import EnrolmentAnswer
from koser.serving.problems import ProblemError, documented
from koser.serving.service import Service
from koser.serving.uploads import UPLOAD_BODY, UPLOAD_PROBLEMS

Identity = Annotated[str, Path(description="Of POST /v1/enrolments.")]


def add_enrolments(app: FastAPI, service: Service) -> None:
    """Add the paths that make, extend and forget an enrolment."""

    async def hear(request: Request) -> tuple[np.ndarray, float]:
        try:
            service.recognizer.require_enrolling()
        except KoserError as error:
            raise ProblemError("invalid-request", str(error)) from error
        async with service.received(request, service.config.max_predict_seconds) as spool:
            waveform, duration = spool.read_waveform(), spool.duration
        try:
            await asyncio.to_thread(require_speech, waveform, "the sound")
        except NoSpeechError as error:
            raise ProblemError("no-speech", str(error)) from error
        summary = await service.summarise(waveform)
        service.metrics.audio_seconds.labels("/v1/enrolments").inc(duration)
        return summary, duration

    @app.post(
        "/v1/enrolments",
        tags=["enrolment"],
        summary="Hear a person speak, to recognise what that person says by it",
        status_code=201,
        response_model=EnrolmentAnswer,
        responses=documented(*UPLOAD_PROBLEMS, "no-speech"),
        openapi_extra=UPLOAD_BODY,
    )
    async def enrol(request: Request) -> Response:
        service.voices.check_room()
        identity = service.voices.add(*await hear(request))
        return JSONResponse(service.voices.describe(identity).model_dump(), status_code=201)

    @app.post(
        "/v1/enrolments/{identity}",
        tags=["enrolment"],
        summary="Hear more of the same person",
        response_model=EnrolmentAnswer,
        responses=documented(*UPLOAD_PROBLEMS, "no-speech", "enrolment-not-found"),
        openapi_extra=UPLOAD_BODY,
    )
    async def enrol_more(request: Request, identity: Identity) -> Response:
        service.voices.check_more(identity)
        service.voices.add(*await hear(request), identity)
        return JSONResponse(service.voices.describe(identity).model_dump())

    @app.delete(
        "/v1/enrolments/{identity}",
        tags=["enrolment"],
        summary="Forget what was heard",
        status_code=204,
        responses=documented("unauthorized", "enrolment-not-found"),
    )
    async def forget(identity: Identity) -> Response:
        service.voices.remove(identity)
        return Response(status_code=204)
