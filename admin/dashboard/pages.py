"""What all pages of the dashboard share: the headers that keep them apart from other sites, and their error pages."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Blueprint, Response, make_response, render_template, request

from admin import errors, handlers
from supervisor.errors import NotRunning, ProtocolError, Refused

AWAY_REFRESH_SECONDS = 5
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


@dataclass(frozen=True)
class Page:
    """An entry of the navigation: the page is the endpoint NAME.index."""

    name: str
    title: str
    blueprint: Blueprint


def new_blueprint(name: str) -> Blueprint:
    """A blueprint for pages and for what their scripts fetch.

    An error is a page, or an OpenAI error object for a script, which asks with `Accept: application/json`.
    """
    blueprint = Blueprint(name, __name__)
    blueprint.after_request(_secure)
    blueprint.register_error_handler(Refused, refused)
    blueprint.register_error_handler(NotRunning, _away)
    blueprint.register_error_handler(ProtocolError, _away)
    return blueprint


def _secure(response: Response) -> Response:
    """Nothing of a page may be loaded from, sent to or framed by another site, whatever slips into it."""
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["Cache-Control"] = "no-store"
    return response


def refused(refusal: Refused) -> Response:
    """Why not, for whoever asked."""
    if is_a_script():
        return handlers.respond(refusal)
    response = make_response(render_template("error.html", error=str(refusal)), refusal.status)
    response.headers.extend(errors.retry_headers(refusal.retry_after))
    return response


def _away(error: Exception) -> Response:
    """The supervisor does not answer: say so, and look again in a moment."""
    errors.log.warning("%s", error)
    if is_a_script():
        return handlers.respond(errors.away())
    response = make_response(render_template("away.html"), 503)
    response.headers["Retry-After"] = str(AWAY_REFRESH_SECONDS)
    response.headers["Refresh"] = str(AWAY_REFRESH_SECONDS)
    return response


def is_a_script() -> bool:
    """Whether the request wants no page."""
    return request.accept_mimetypes.best == "application/json"
