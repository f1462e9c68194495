"""The path that explains: which moments and words of a sound its label rests on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated

from fastapi import FastAPI, Query, Request
from fastapi.responses import JSONResponse, Response

from koser.audio.reading import SAMPLING_RATE, AudioInfo, segment_bounds
from koser.errors import AudioError
from koser.inference.explanation import MAX_SECONDS, Explanation, explain
from koser.serving.answers import ExplanationAnswer
from koser.serving.problems import ProblemError, documented
from koser.serving.recognition import EnrolmentId, Labels, Peaks, Threshold
from koser.serving.service import Service
from koser.serving.spool import Spool
from koser.serving.timelines import measure_peaks
from koser.serving.uploads import UPLOAD_BODY, UPLOAD_PROBLEMS
from koser.serving.waiting import computed

# An explanation is a hundred recognitions and more. The model gets them in pieces so small that
# whoever comes meanwhile waits for little: the queue takes turns between pieces.
_PIECE_SECONDS = 16.0

Start = Annotated[
    float | None, Query(ge=0, description="Where the part begins, in seconds; else at the start.")
]
End = Annotated[
    float | None, Query(gt=0, description="Where the part ends, in seconds; else at the end.")
]


def add_explanation(app: FastAPI, service: Service) -> None:
    """Add ``/v1/explain``."""

    @app.post(
        "/v1/explain",
        tags=["recognition"],
        summary="What the label of a sound, or of a part of it, rests on",
        response_model=ExplanationAnswer,
        responses=documented(*UPLOAD_PROBLEMS, "not-ready", "enrolment-not-found"),
        openapi_extra=UPLOAD_BODY,
    )
    async def explain_upload(
        request: Request,
        start: Start = None,
        end: End = None,
        threshold: Threshold = None,
        labels: Labels = None,
        peaks: Peaks = 0,
        enrolment: EnrolmentId = None,
    ) -> Response:
        recognizer, config = service.configured(threshold, labels, enrolment), service.config
        with service.explanation_slot():
            async with service.received(request, config.max_timeline_seconds) as spool:
                first, last = _bounds(spool, start, end)
                waveform = spool.read_waveform(first, last - first)
                outline = (
                    await asyncio.to_thread(
                        measure_peaks, spool, peaks, first=first, n_samples=len(waveform)
                    )
                    if peaks
                    else None
                )

            def compute(check: Callable[[], None]) -> Explanation:
                return explain(
                    recognizer,
                    waveform,
                    batch_seconds=_PIECE_SECONDS,
                    progress=lambda _: check(),
                )

            found = await computed(
                request,
                compute,
                pool=service.pool,
                timeout=config.explain_timeout,
                name="explanation",
            )
        service.metrics.audio_seconds.labels("/v1/explain").inc(found.prediction.duration)
        values = found.to_dict() | {"start": first / SAMPLING_RATE, "peaks": outline}
        return JSONResponse({name: values[name] for name in ExplanationAnswer.model_fields})


def _bounds(spool: Spool, start: float | None, end: float | None) -> tuple[int, int]:
    """Samples of the part.

    Raises
    ------
    ProblemError
        If it is not within the sound, or too long.
    """
    sound = AudioInfo(
        path="upload",
        duration=spool.duration,
        sampling_rate=SAMPLING_RATE,
        n_channels=1,
        n_samples=spool.n_samples,
        container="RAW",
        subtype="FLOAT",
    )
    try:
        first, last = segment_bounds(sound, start, end)
    except AudioError as error:
        raise ProblemError("invalid-request", str(error)) from error
    seconds = (last - first) / SAMPLING_RATE
    if seconds > MAX_SECONDS:
        raise ProblemError(
            "audio-too-long",
            f"The part lasts {seconds:.1f} s; up to {MAX_SECONDS:g} s are explained at once. Give "
            f"start and end of what matters: /v1/timeline tells where that is.",
        )
    return first, last
