"""How the server says no: {"schema_version": 1, "error": a sentence}, whatever the reason."""

from __future__ import annotations

import http
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from vsearch.errors import LibraryError, VsearchError
from vsearch.webui.records import SCHEMA_VERSION, Refusal

if TYPE_CHECKING:
    from fastapi import FastAPI

# What any address may answer, for the OpenAPI description.
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal, "description": why}
    for status, why in {
        400: "Not a name of this server",
        401: "No token, or a wrong one",
        403: "Asked by another site",
        404: "Not there, or no longer what was indexed",
        405: "Not with this method",
        408: "The body came too slowly",
        409: "There is no library, or it is in use",
        413: "Too large",
        422: "A value that makes no sense",
        500: "A fault of the server",
        503: "Too much at once",
    }.items()
}


def refusal(status: int, error: str, headers: Mapping[str, str] | None = None, **more: Any) -> JSONResponse:
    """`more`: further fields."""
    return JSONResponse({"schema_version": SCHEMA_VERSION, "error": error, **more}, status, headers)


def say_no(app: FastAPI) -> None:
    """Answer every error of the application in that shape."""
    app.add_exception_handler(VsearchError, _in_words)
    app.add_exception_handler(HTTPException, _by_status)
    app.add_exception_handler(RequestValidationError, _by_value)
    app.add_exception_handler(Exception, _fault)


async def _in_words(request: Request, error: Exception) -> Response:
    return refusal(409 if isinstance(error, LibraryError) else 422, str(error))


async def _by_status(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    if "GET" in headers.get("allow", ""):
        headers["allow"] += ", HEAD"
    words = {404: "there is nothing here", 405: f"ask this address with {headers.get('allow')}"}
    plain = error.detail == http.HTTPStatus(error.status_code).phrase  # Starlette's own words
    said = words.get(error.status_code) if plain else None
    return refusal(error.status_code, said or error.detail, headers)


async def _by_value(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = [{"loc": fault["loc"], "msg": fault["msg"], "type": fault["type"]} for fault in error.errors()]
    name = str(faults[0]["loc"][-1]) if faults else "the request"
    why = faults[0]["msg"] if faults else ""
    return refusal(422, f"{name} cannot be understood: {why[:1].lower()}{why[1:]}", detail=faults)


async def _fault(request: Request, error: Exception) -> Response:
    return refusal(500, "something went wrong in the server; what it was stands in the server's terminal")
