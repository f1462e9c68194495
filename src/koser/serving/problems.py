"""Errors as RFC 9457 problem details: what went wrong, why, and the next step.

Each kind has a name that a client can rely on; its page, ``GET /problems/{name}``, is what the
member ``type`` points to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True)
class Kind:
    """A kind of problem.

    Attributes
    ----------
    status : int
        Of the response.
    title : str
        The same for every occurrence.
    meaning : str
        What its page says.
    """

    status: int
    title: str
    meaning: str


KINDS: Mapping[str, Kind] = {
    "bad-request": Kind(400, "Bad request", "The request is malformed; `detail` says where."),
    "unauthorized": Kind(
        401, "API key needed", "Send a key as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'."
    ),
    "foreign-origin": Kind(
        403, "Foreign origin", "A page of another site may not open a stream on this server."
    ),
    "not-found": Kind(404, "No such path", "See /openapi.json for what there is."),
    "enrolment-not-found": Kind(
        404, "No such enrolment", "It expired, was deleted, or never was; enrol again."
    ),
    "method-not-allowed": Kind(405, "Method not allowed", "The header Allow says which one is."),
    "upload-timeout": Kind(
        408, "Upload too slow", "The body did not arrive in time; send it faster or in pieces."
    ),
    "upload-too-large": Kind(
        413, "Upload too large", "The body has more bytes than the server takes."
    ),
    "audio-too-long": Kind(
        413, "Audio too long", "The sound lasts longer than the server takes in one request."
    ),
    "unsupported-media-type": Kind(
        415,
        "Unsupported media type",
        "Send audio/*, application/octet-stream or multipart/form-data, without Content-Encoding.",
    ),
    "audio-unreadable": Kind(
        422, "Audio unreadable", "The bytes are no sound that can be decoded; `detail` says why."
    ),
    "no-speech": Kind(
        422, "No speech", "Nobody speaks in the sound, so there is no voice to enrol; send speech."
    ),
    "invalid-request": Kind(
        422, "Invalid request", "A parameter or a form field is wrong; `detail` says which."
    ),
    "bad-message": Kind(
        422, "Bad message", "A stream takes binary messages of PCM, and one text that ends it."
    ),
    "stream-idle": Kind(408, "Stream idle", "No sound came for too long; open another stream."),
    "internal-error": Kind(
        500, "Internal error", "A defect of the server. Its log has the request's id."
    ),
    "busy": Kind(
        503, "Busy", "The server holds all that it can; try again after Retry-After seconds."
    ),
    "not-ready": Kind(503, "Not ready", "The server is starting, or about to end."),
    "model-timeout": Kind(
        504, "Too slow", "The model did not answer in time; send a shorter piece of sound."
    ),
}
_KIND_OF_STATUS = {
    400: "bad-request",
    401: "unauthorized",
    404: "not-found",
    405: "method-not-allowed",
    413: "upload-too-large",
    415: "unsupported-media-type",
    422: "invalid-request",
    503: "busy",
}


class ProblemDetails(BaseModel):
    """An error as RFC 9457 writes it."""

    type: str = Field(description="What kind of problem; a page that explains it.")
    title: str = Field(description="The same for every problem of this kind.")
    status: int = Field(description="The HTTP status.", ge=400, le=599)
    detail: str = Field(description="What is wrong here, why, and the next step.")
    request_id: str = Field(description="Of this request, as in the server's log.")


@dataclass
class ProblemError(Exception):
    """Raised where a request is refused; becomes the response.

    Parameters
    ----------
    kind : str
        A key of `KINDS`.
    detail : str
        What is wrong with this request, with values, and the next step.
    headers : Mapping[str, str]
        To send along.
    """

    kind: str
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"

    @property
    def status(self) -> int:
        """The HTTP status."""
        return KINDS[self.kind].status


def problem_of_status(status: int, detail: str, headers: Mapping[str, str] | None) -> ProblemError:
    """The problem that an HTTP error of the framework means."""
    kind = _KIND_OF_STATUS.get(status, "bad-request" if status < 500 else "internal-error")
    return ProblemError(kind, detail or HTTPStatus(status).phrase, headers or {})


def problem_response(problem: ProblemError, request_id: str) -> JSONResponse:
    """`problem` as a response."""
    kind = KINDS[problem.kind]
    content = ProblemDetails(
        type=f"/problems/{problem.kind}",
        title=kind.title,
        status=kind.status,
        detail=problem.detail,
        request_id=request_id,
    )
    return JSONResponse(
        content.model_dump(),
        status_code=kind.status,
        headers=dict(problem.headers),
        media_type=MEDIA_TYPE,
    )


def documented(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI responses of problems that an operation may answer with."""
    by_status: dict[int, list[str]] = {}
    for name in kinds:
        by_status.setdefault(KINDS[name].status, []).append(name)
    reference = {"$ref": "#/components/schemas/ProblemDetails"}
    return {
        status: {
            "description": "; ".join(KINDS[name].title for name in names) + ".",
            "content": {MEDIA_TYPE: {"schema": reference}},
        }
        for status, names in sorted(by_status.items())
    }
