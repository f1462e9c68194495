"""The application: what each path does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, WebSocket
from fastapi.exceptions import (
    RequestValidationError,
    ValidationException,
    WebSocketRequestValidationError,
)
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.routing import Match, Route
from starlette.types import ASGIApp

from koser import __version__
from koser.serving.enrolments import add_enrolments
from koser.serving.explanations import add_explanation
from koser.serving.gate import CLIENT_LEFT, Gate, Keys
from koser.serving.operation import add_operation, add_page
from koser.serving.problems import (
    ProblemDetails,
    ProblemError,
    documented,
    problem_of_status,
    problem_response,
)
from koser.serving.recognition import add_recognition
from koser.serving.service import Service
from koser.serving.sound_service import SoundService
from koser.serving.values import ValueService, add_values

_OF_LABELS = (
    "Emotions in Korean speech: calibrated probabilities of a sound (`/v1/predict`), a timeline of "
    "a recording (`/v1/timeline`), what a label rests on (`/v1/explain`), and results while one "
    "speaks (WebSocket `/v1/stream`, see docs/serving.md). Every error is an RFC 9457 problem."
)
_OF_VALUES = (
    "Valence and arousal of speech (`/v1/predict`), in the units of the raters that the model has "
    "learnt from. Every error is an RFC 9457 problem."
)


def create_app(service: Service | ValueService, keys: Keys | None = None) -> ASGIApp:
    """The ASGI application that serves `service`.

    Parameters
    ----------
    service : Service or ValueService
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
        description=_OF_VALUES if isinstance(service, ValueService) else _OF_LABELS,
        lifespan=lifespan,
        # Their pages load scripts from a CDN.
        docs_url=None,
        redoc_url=None,
        # FastAPI's own 422 is no problem details.
        responses=documented("method-not-allowed"),
    )
    _handle_errors(app, service)
    if isinstance(service, ValueService):
        add_values(app, service)
    else:
        add_recognition(app, service)
        add_explanation(app, service)
        add_enrolments(app, service)
        add_page(app)
    add_operation(app, service)
    _describe(app, needs_key=keys is not None)
    return Gate(app, keys or Keys(), service.metrics)


def _handle_errors(app: FastAPI, service: SoundService) -> None:
    async def answer(connection: HTTPConnection, problem: ProblemError) -> Response | None:
        service.metrics.problems.labels(problem.kind).inc()
        response = problem_response(problem, connection.state.request_id)
        if isinstance(connection, WebSocket):
            await connection.send_denial_response(response)
            return None
        return response

    @app.exception_handler(ProblemError)
    async def on_problem(connection: HTTPConnection, error: ProblemError) -> Response | None:
        return await answer(connection, error)

    @app.exception_handler(HTTPException)
    async def on_status(connection: HTTPConnection, error: HTTPException) -> Response | None:
        problem = problem_of_status(error.status_code, error.detail, error.headers)
        if problem.kind == "not-found":
            problem.detail = "Nothing is at this path. What there is: /openapi.json"
        elif problem.kind == "method-not-allowed":
            # The framework names those of one route; a path may have several.
            allowed = ", ".join(_methods_at(app, connection))
            problem.headers = {**problem.headers, "Allow": allowed}
            problem.detail = f"This path takes {problem.headers.get('Allow')} only."
        return await answer(connection, problem)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(connection: HTTPConnection, error: ValidationException) -> Response | None:
        found = [f"{each['loc'][-1]}: {each['msg']}" for each in error.errors()]
        return await answer(connection, ProblemError("invalid-request", "; ".join(found)))

    @app.exception_handler(WebSocketRequestValidationError)
    async def on_invalid_stream(
        connection: HTTPConnection, error: WebSocketRequestValidationError
    ) -> Response | None:
        return await on_invalid(connection, error)

    @app.exception_handler(ClientDisconnect)
    async def on_leaving(_: HTTPConnection, __: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_LEFT)  # for the log

    @app.exception_handler(Exception)
    async def on_defect(connection: HTTPConnection, _: Exception) -> Response | None:
        # Raised again by the framework afterwards: the gate writes it into the log.
        identity = connection.state.request_id
        return await answer(connection, ProblemError("internal-error", f"See the log: {identity}."))


def _methods_at(app: FastAPI, connection: HTTPConnection) -> list[str]:
    """What the path of a request takes."""
    routes = [route for route in app.routes if isinstance(route, Route)]
    here = [each for each in routes if each.matches(connection.scope)[0] is not Match.NONE]
    return sorted({method for route in here for method in route.methods or ()})


def _describe(app: FastAPI, *, needs_key: bool) -> None:
    """Make ``/openapi.json`` say what FastAPI cannot know."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generate()
            schemas = schema.setdefault("components", {}).setdefault("schemas", {})
            schemas["ProblemDetails"] = ProblemDetails.model_json_schema()
            _forget_own_errors(schema)
            if needs_key:
                _describe_keys(schema)
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _forget_own_errors(schema: dict[str, Any]) -> None:
    """Take out the 422 that FastAPI adds to whatever has a parameter."""
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)
    for operations in schema["paths"].values():
        for operation in operations.values():
            content = operation["responses"].get("422", {}).get("content", {})
            if "application/json" in content:
                del operation["responses"]["422"]


def _describe_keys(schema: dict[str, Any]) -> None:
    schema["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    for path, operations in schema["paths"].items():
        if path.startswith(("/v1/", "/metrics")):
            for operation in operations.values():
                operation["security"] = [{"bearer": []}, {"header": []}]
