"""The paths that operate: health, counters, what a problem means, the web page."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Path, Request
from fastapi.responses import PlainTextResponse, Response

from koser.serving.answers import StateAnswer
from koser.serving.pages import PageFile, read_page
from koser.serving.problems import KINDS, ProblemError, documented
from koser.serving.sound_service import SoundService


def add_operation(app: FastAPI, service: SoundService) -> None:
    """Add health, metrics and the pages of problems."""

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
            raise ProblemError("not-ready", "Send requests elsewhere: this server is about to end.")
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
    async def problem_page(
        kind: Annotated[str, Path(json_schema_extra={"enum": list(KINDS)})],
    ) -> Response:
        if kind not in KINDS:
            raise ProblemError("not-found", "No problem of this server is called so.")
        found = KINDS[kind]
        return PlainTextResponse(f"{found.status} {found.title}\n\n{found.meaning}\n")


def add_page(app: FastAPI) -> None:
    """Add the web page."""
    files = read_page()

    def respond(request: Request, file: PageFile) -> Response:
        headers = {"ETag": file.etag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=304, headers=headers)
        return Response(file.content, media_type=file.media_type, headers=headers)

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        return respond(request, files["index.html"])

    @app.get("/page/{name}", include_in_schema=False)
    async def page_file(request: Request, name: str) -> Response:
        if name not in files:
            raise ProblemError("not-found", "The page has no such file.")
        return respond(request, files[name])
