"""The application: what each path does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp

from koser import __version__
from koser.serving.answers import ModelAnswer, PredictionAnswer, StateAnswer
from koser.serving.gate import Gate, Keys
from koser.serving.problems import (
    KINDS,
    Problem,
    ProblemDetails,
    documented,
    problem_of_status,
    problem_response,
)
from koser.serving.service import Service
from koser.serving.uploads import UPLOAD_BODY

_UPLOAD_PROBLEMS = (
    "bad-request",
    "unauthorized",
    "upload-timeout",
    "upload-too-large",
    "audio-too-long",
    "unsupported-media-type",
    "audio-unreadable",
    "invalid-request",
    "busy",
    "model-timeout",
)
_DESCRIPTION = (
    "Emotions in Korean speech: calibrated probabilities of a sound (`/v1/predict`), a timeline of "
    "a recording (`/v1/timeline`), and results while one speaks (WebSocket `/v1/stream`, see "
    "docs/serving.md). Every error is an RFC 9457 problem."
)


def create_app(service: Service, keys: Keys | None = None) -> ASGIApp:
    """The ASGI application that serves `service`.

    Parameters
    ----------
    service : Service
        Started and ended with the application.
    keys : Keys, optional
        Who may use it; by default everybody.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title="koser",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        # Their pages load scripts from a CDN.
        docs_url=None,
        redoc_url=None,
        # FastAPI's own 422 is no problem details.
        responses=documented("method-not-allowed"),
    )
    _handle_errors(app, service)
    _add_recognition(app, service)
    _add_operation(app, service)
    _describe(app, needs_key=keys is not None)
    return Gate(app, keys or Keys(), service.metrics)


def _handle_errors(app: FastAPI, service: Service) -> None:
    async def answer(connection: HTTPConnection, problem: Problem) -> Response | None:
        service.metrics.problems.labels(problem.kind).inc()
        response = problem_response(problem, connection.state.request_id)
        if isinstance(connection, WebSocket):
            await connection.send_denial_response(response)
            return None
        return response

    @app.exception_handler(Problem)
    async def on_problem(connection: HTTPConnection, error: Problem) -> Response | None:
        return await answer(connection, error)

    @app.exception_handler(HTTPException)
    async def on_status(connection: HTTPConnection, error: HTTPException) -> Response | None:
        problem = problem_of_status(error.status_code, error.detail, error.headers)
        if problem.kind == "not-found":
            problem.detail = "Nothing is at this path. What there is: /openapi.json"
        elif problem.kind == "method-not-allowed":
            problem.detail = f"This path takes {problem.headers.get('Allow')} only."
        return await answer(connection, problem)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(
        connection: HTTPConnection, error: RequestValidationError
    ) -> Response | None:
        found = [f"{each['loc'][-1]}: {each['msg']}" for each in error.errors()]
        return await answer(connection, Problem("invalid-request", "; ".join(found)))

    @app.exception_handler(Exception)
    async def on_defect(connection: HTTPConnection, _: Exception) -> Response | None:
        # Raised again by the framework afterwards: the gate writes it into the log.
        identity = connection.state.request_id
        return await answer(connection, Problem("internal-error", f"See the log: {identity}."))


Threshold = Annotated[
    float | None,
    Query(ge=0, le=1, description="Probability below which `label` is null."),
]
Labels = Annotated[
    list[str] | None,
    Query(description="Only these labels, their probabilities brought to 1; repeat to name more."),
]


def _add_recognition(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/predict",
        tags=["recognition"],
        summary="Probabilities of every label for one sound",
        response_model=PredictionAnswer,
        responses=documented(*_UPLOAD_PROBLEMS),
        openapi_extra=UPLOAD_BODY,
    )
    async def predict(
        request: Request, threshold: Threshold = None, labels: Labels = None
    ) -> Response:
        recognizer = service.configured(threshold, labels)
        async with service.received(request, service.config.max_predict_seconds) as spool:
            waveform, duration = spool.read_waveform(), spool.duration
        probabilities = await service.model.predict(waveform, service.config.predict_timeout)
        service.metrics.audio_seconds.labels("/v1/predict").inc(duration)
        values = recognizer.interpret(probabilities, duration).to_dict()
        return JSONResponse({name: values[name] for name in PredictionAnswer.model_fields})

    @app.get(
        "/v1/model",
        tags=["recognition"],
        summary="Labels and limits",
        response_model=ModelAnswer,
        responses=documented("unauthorized"),
    )
    async def model() -> ModelAnswer:
        return service.describe_model()


def _add_operation(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", tags=["operation"], summary="The process lives")
    async def healthz() -> StateAnswer:
        return StateAnswer(status="ok")

    @app.get(
        "/readyz",
        tags=["operation"],
        summary="It takes work",
        responses=documented("not-ready"),
    )
    async def readyz() -> StateAnswer:
        if service.ending.is_set() or not service.is_ready:
            raise Problem("not-ready", "Send requests elsewhere: this server is about to end.")
        return StateAnswer(status="ok")

    @app.get(
        "/metrics",
        tags=["operation"],
        summary="Counters for Prometheus",
        response_class=PlainTextResponse,
        responses=documented("unauthorized"),
    )
    async def metrics() -> Response:
        return Response(service.metrics.render(), media_type="text/plain; version=0.0.4")

    @app.get(
        "/problems/{kind}",
        tags=["operation"],
        summary="What a kind of problem means",
        response_class=PlainTextResponse,
        responses=documented("not-found"),
    )
    async def problem_page(kind: str) -> Response:
        if kind not in KINDS:
            raise Problem("not-found", "No problem of this server is called so.")
        found = KINDS[kind]
        return PlainTextResponse(f"{found.status} {found.title}\n\n{found.meaning}\n")


def _describe(app: FastAPI, *, needs_key: bool) -> None:
    """Make ``/openapi.json`` say what FastAPI cannot know."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generate()
            schemas = schema.setdefault("components", {}).setdefault("schemas", {})
            schemas["ProblemDetails"] = ProblemDetails.model_json_schema()
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            if needs_key:
                _describe_keys(schema)
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _describe_keys(schema: dict[str, Any]) -> None:
    schema["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    for path, operations in schema["paths"].items():
        if path.startswith(("/v1/", "/metrics")):
            for operation in operations.values():
                operation["security"] = [{"bearer": []}, {"header": []}]
