"""Signing in: with a password, which alone tells admin and viewer apart, or with the one-time link; and signing out.

The link leads to a page with a button that sends its token, as what looks at links by itself (previews in a chat, virus
scanners) must not use it up.
"""

from __future__ import annotations

import re

from flask import Response, current_app, jsonify, make_response, redirect, render_template, request
from werkzeug.wrappers import Response as BaseResponse

from admin import sessions
from admin.cors import is_dashboard
from admin.dashboard.access import Role, credentials, current_role, needs
from admin.dashboard.pages import is_a_script, new_blueprint
from admin.errors import log, retry_headers, type_of
from admin.handlers import respond
from admin.throttle import Group, Throttle, Visitor, client_of
from supervisor.core.access import Access, RoleName
from supervisor.errors import Refused

blueprint = new_blueprint("login")

MAX_FORM = 16384  # bytes: a password and a page to go on to are far shorter
MAX_NEXT = 2048
# What browsers take out of an address, or read as a slash, and what would end a header.
_ODD = re.compile(r"[\x00-\x20\x7f-\xff\\]|^//")

WRONG = "that is not the password"
UNREADABLE = (
    "nobody can sign in: the file with the passwords can't be used: {}. To make it anew, run llama-router passwd on "
    "the machine itself"
)
USED_UP = "this link has been used, or another link or a password was made since"


@blueprint.get("/ui/login")
@needs(Role.NOBODY)
def index() -> BaseResponse:
    """The page; who is signed in is led on, unless there is a link, which may be another role's."""
    token = request.args.get("token", "")
    if token and credentials().access() is not None:
        return page(USED_UP, 403) if credentials().of_link(token) is None else page(token=token)
    if current_role() is not Role.NOBODY:
        return redirect(_next(), code=303)
    return page()


@blueprint.post("/ui/login")
@needs(Role.NOBODY)
def sign_in() -> BaseResponse:
    """A password, or the token of a link."""
    request.max_content_length = MAX_FORM
    if (problem := credentials().problem()) is not None:
        return page(UNREADABLE.format(problem), 503)
    if token := request.form.get("token"):
        if (access := credentials().use_link(token)) is None:
            return page(USED_UP, 403)
        log.warning("signed in as admin by the one-time link: %s", request.environ.get("REMOTE_ADDR"))
        return _enter("admin", access)
    try:
        found = _role_of(request.form.get("password", ""))
    except Refused as refusal:
        return page(str(refusal), refusal.status, refusal.retry_after)
    return _enter(*found) if found is not None else page(WRONG, 403)


@blueprint.post("/ui/logout")
@needs(Role.NOBODY)
def sign_out() -> BaseResponse:
    """The browser forgets its session."""
    response = make_response(redirect("/ui/login", code=303))
    sessions.end(request, response)
    return response


@blueprint.get("/ui/session")
@needs(Role.VIEWER)
def session() -> Response:
    """{"role": "admin" or "viewer"}, for scripts; 401 tells them that theirs is over."""
    return jsonify(role=current_role().name.lower())


def page(error: str | None = None, status: int = 200, retry_after: float | None = None, token: str = "") -> Response:
    """The form, with what went wrong last time; with a `token`, one button."""
    known = credentials().access()
    if is_a_script() and error is not None:
        return respond(Refused(error, status=status, error_type=type_of(status), retry_after=retry_after))
    form = render_template(
        "login.html",
        error=error,
        token=token,
        next=_next(),
        problem=credentials().problem(),
        has_password=known is not None and (known.admin.hash or known.viewer.hash) is not None,
        has_admin=known is not None and known.admin.hash is not None,
    )
    response = make_response(form, status)
    response.headers.extend(retry_headers(retry_after))
    return response


def _role_of(password: str) -> tuple[RoleName, Access] | None:
    """Raises Refused (429) after too many failures."""
    throttle, visitor = Throttle(current_app.config["RUNTIME_DIR"]), _visitor()
    attempt = throttle.begin(visitor)
    found = credentials().role_of(password)
    if found is None:
        log.warning("wrong password from %s", visitor.address)
    else:
        throttle.succeeded(attempt, forgives=found[0] == "admin")
    return found


def _visitor() -> Visitor:
    """Who tries to sign in."""
    access, browser = credentials().access(), None
    if access is not None and (known := sessions.known_browser(request, access)) is not None:
        role, name = known
        browser = (Group.ADMINS if role == "admin" else Group.VIEWERS, name)
    return Visitor(client_of(request.environ), browser)


def _enter(role: RoleName, access: Access) -> BaseResponse:
    """Lead on, with a session of its own: whatever cookie the browser had is replaced. It is of what the password was
    checked against: one that is changed at this moment ends it."""
    response = make_response(redirect(_next(), code=303))
    sessions.begin(request, response, role, access)
    sessions.know_browser(request, response, role, access)
    return response


def _next() -> str:
    """The page to go on to: one of the dashboard's, whatever the link says."""
    wanted = request.values.get("next", "/")
    path = wanted.partition("?")[0].partition("#")[0]
    is_own = is_dashboard(path) and not path.startswith(("/ui/login", "/ui/logout", "/static/"))
    return wanted if is_own and len(wanted) <= MAX_NEXT and not _ODD.search(wanted) else "/"
