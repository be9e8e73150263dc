"""Flask's exceptions as error objects; HTML is left to the dashboard's own pages."""

from __future__ import annotations

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from admin import errors
from supervisor.errors import NotRunning, ProtocolError, Refused


def respond(refusal: Refused) -> Response:
    """The refusal as a Flask response, with every problem of a configuration that can't be used."""
    message = "\n".join([str(refusal), *map(str, refusal.problems)])
    body = errors.error_object(refusal.status, message, refusal.error_type)
    return Response(body, status=refusal.status, headers=errors.headers_for(refusal))


def register(app: Flask) -> None:
    """Answer every exception of the application with an error object. Blueprints with pages register their own."""
    app.config["PROPAGATE_EXCEPTIONS"] = True  # those that _unexpected lets pass
    app.register_error_handler(Refused, respond)
    app.register_error_handler(NotRunning, _away)
    app.register_error_handler(ProtocolError, _away)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unexpected)


def _away(error: Exception) -> Response:
    errors.log.warning("%s", error)
    return respond(errors.away())


def _http(error: HTTPException) -> Response:
    # llama-server knows no 405: a path with another method is another route.
    status = 404 if error.code == 405 else error.code or 500
    message = "File Not Found" if status == 404 else str(error.description or error.name)
    return respond(Refused(message, status=status, error_type=errors.type_of(status)))


def _unexpected(error: Exception) -> Response:
    if isinstance(error, errors.CONNECTION_ENDS):
        raise error
    errors.log.error("cannot answer %s %r", request.method, request.path, exc_info=error)
    return respond(Refused("llama-router failed on this request; its log says why"))
