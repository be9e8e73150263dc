"""Who may see and do what: the role that each route needs stands beside it, and is asked for before its view runs.

On the way to a view: (1) the page must be asked for by a name of this machine, (2) what changes anything is for pages
of the same origin, (3) the browser must be signed in, (4) as somebody who may.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import ParamSpec, TypeVar, cast
from urllib.parse import urlencode

from flask import Blueprint, Flask, Response, after_this_request, current_app, g, redirect, request

from admin import origin, sessions
from admin.credentials import Credentials
from admin.dashboard.pages import is_a_script, refused
from admin.followers import MAX_OF_ADDRESS, MAX_OF_SESSION, Shares
from admin.handlers import respond
from admin.throttle import client_of
from supervisor.core.access import Access, RoleName
from supervisor.errors import Refused

P = ParamSpec("P")
R = TypeVar("R")

NOT_SIGNED_IN = "sign in first, at /ui/login"
NOT_AN_ADMIN = "you are signed in as viewer, and only the admin may do this"
SAFE_METHODS = frozenset(["GET", "HEAD"])


class Role(IntEnum):
    """A viewer sees everything but secrets and uses models; an admin changes what runs, and the presets. What needs
    nobody is there for those who are not signed in."""

    NOBODY = 0
    VIEWER = 1
    ADMIN = 2


OF_NAME: dict[RoleName, Role] = {"admin": Role.ADMIN, "viewer": Role.VIEWER}


def needs(role: Role) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let nobody with less than `role` reach a view. It stands next to the view, below the route."""

    def guard(view: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                _check(role)
            except Refused as refusal:
                # Returned, not raised: a blueprint's own handler would show its page with the refusal on it.
                return cast(R, _answer(refusal))
            return view(*args, **kwargs)

        guarded.role = role  # type: ignore[attr-defined]
        return guarded

    return guard


def role_of(view: object) -> Role:
    """What a guarded view needs."""
    role: Role = view.role  # type: ignore[attr-defined]
    return role


def register(app: Flask, blueprints: Iterable[Blueprint]) -> None:
    """Look whether every view of these needs a role; raises TypeError if one does not."""
    names = {blueprint.name for blueprint in blueprints}
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        if rule.endpoint.rpartition(".")[0] in names and not hasattr(view, "role"):
            raise TypeError(f"{rule.endpoint} ({rule}) says not who may see it: put @needs(Role.…) below its route")
    app.extensions["llama_router_credentials"] = Credentials(app.config["STATE_DIR"], app.config["RUNTIME_DIR"])
    app.context_processor(lambda: {"role": _name(current_role())})


def credentials() -> Credentials:
    """Those of the running application."""
    known: Credentials = current_app.extensions["llama_router_credentials"]
    return known


def current_role() -> Role:
    """What whoever sent the request is signed in as."""
    if "role" not in g:
        g.role = _signed_in()
    role: Role = g.role
    return role


def follower() -> Shares:
    """What a stream of whoever sent the request counts for, see followers.endless."""
    access = credentials().access()
    session = sessions.session_of(request, access) if access is not None else None
    if session is None:
        return {}
    address = client_of(request.environ)
    return {session.value: MAX_OF_SESSION, (session.role, address): MAX_OF_ADDRESS}


def still_signed_in() -> Callable[[], bool]:
    """A function that says whether the request would be let through now: for streams, which outlive their start."""
    cookies, known, role = request.cookies.getlist(sessions.cookie_name(request)), credentials(), current_role()

    def look() -> bool:
        access = known.access()
        if access is None:
            return False
        found = [session for value in cookies if (session := sessions.opened(value, access)) is not None]
        return any(OF_NAME[session.role] >= role for session in found)

    return look


def _signed_in() -> Role:
    access = credentials().access()
    session = sessions.session_of(request, access) if access is not None else None
    if access is None or session is None:
        return Role.NOBODY
    if session.is_old:
        renew = functools.partial(_renew, session.role, access)
        after_this_request(renew)
    return OF_NAME[session.role]


def _renew(role: RoleName, access: Access, response: Response) -> Response:
    """By the same `access` that the session was of: one that ended meanwhile stays ended."""
    if "Set-Cookie" not in response.headers:
        sessions.begin(request, response, role, access)
    return response


def _name(role: Role) -> str | None:
    return None if role is Role.NOBODY else role.name.lower()


def _check(role: Role) -> None:
    """Raise Refused: (1) (2) (4) with 403, (3) with 401."""
    origin.refuse_strange_names(request.environ, current_app.config["ORIGINS"])  # (1)
    if request.method not in SAFE_METHODS:
        origin.refuse_foreign_pages(request.environ)  # (2)
    found = current_role()
    if found < role and found is Role.NOBODY:  # (3)
        raise Refused(NOT_SIGNED_IN, status=401, error_type="authentication_error")
    if found < role:  # (4)
        raise Refused(NOT_AN_ADMIN, status=403, error_type="permission_error")


def _answer(refusal: Refused) -> object:
    if refusal.status != 401:
        return refused(refusal)
    if _wants_no_page():
        return respond(refusal)
    asked = request.environ.get("RAW_URI", "/") if request.method in SAFE_METHODS else "/"
    following = "" if asked == "/" else "?" + urlencode({"next": asked})
    return redirect(f"/ui/login{following}", code=303)


def _wants_no_page() -> bool:
    """Whether a script asks, which would take the page that it is led to for what it wanted."""
    if is_a_script() or request.path == "/ui/events" or request.headers.get("Sec-Fetch-Dest") == "empty":
        return True
    return request.accept_mimetypes.best == "text/event-stream"
