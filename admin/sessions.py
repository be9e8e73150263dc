"""Who is signed in: a signed cookie with the role and the era of its password, and no other memory of it anywhere.

The cookie is named after the port of the page: cookies are shared by all ports of a host (RFC 6265 §8.5), and signing
in to one llama-router must not sign out of another. SameSite=Lax lets a link from elsewhere lead to a page; what
changes anything is refused to pages of other sites by admin/origin.py.

A second cookie signs nobody in: it says that this browser has signed in before, for admin/throttle.py.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass

from flask import Request, Response
from itsdangerous import BadData, URLSafeTimedSerializer

from supervisor.core.access import ROLES, Access, RoleName

COOKIE = "llama_router"
LIFE_SECONDS = 30 * 24 * 3600
LOGIN_PATH = "/ui/login"
BROWSER_LIFE_SECONDS = 365 * 24 * 3600
NAME_BYTES = 12
SESSION, BROWSER = "llama-router session", "llama-router browser"  # what a signature is good for
RENEWED_AFTER_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Session:
    """A role, the cookie's value, and whether that is old enough to be sent anew."""

    role: RoleName
    value: str
    is_old: bool


def session_of(request: Request, access: Access) -> Session | None:
    """The session that a request is part of."""
    for value in request.cookies.getlist(cookie_name(request)):
        if (session := opened(value, access)) is not None:
            return session
    return None


def begin(request: Request, response: Response, role: RoleName, access: Access) -> None:
    """Sign in the browser that gets the response, or renew its session."""
    response.set_cookie(
        cookie_name(request),
        sealed(role, access),
        max_age=LIFE_SECONDS,
        secure=request.is_secure,
        httponly=True,
        samesite="Lax",
        path="/",
    )


def end(request: Request, response: Response) -> None:
    """Sign out the browser that gets the response."""
    response.delete_cookie(cookie_name(request), path="/", secure=request.is_secure, httponly=True, samesite="Lax")


def known_browser(request: Request, access: Access) -> tuple[RoleName, str] | None:
    """As whom the browser has signed in with a password or link that is still good, and its random name."""
    for value in request.cookies.getlist(f"{cookie_name(request)}_browser"):
        try:
            content = _serializer(access, BROWSER).loads(value, max_age=BROWSER_LIFE_SECONDS)
        except BadData:
            continue
        for role in ROLES:
            if content[:2] == [role, access.of(role).era]:
                return role, str(content[2])
    return None


def know_browser(request: Request, response: Response, role: RoleName, access: Access) -> None:
    """Have the browser known from now on; as the admin's if it ever was, for others use it meanwhile."""
    known = known_browser(request, access)
    if known is None or role == "admin":
        content = [role, access.of(role).era, secrets.token_hex(NAME_BYTES)]
        response.set_cookie(
            f"{cookie_name(request)}_browser",
            _text(_serializer(access, BROWSER).dumps(content)),
            max_age=BROWSER_LIFE_SECONDS,
            secure=request.is_secure,
            httponly=True,
            samesite="Strict",
            path=LOGIN_PATH,
        )


def cookie_name(request: Request) -> str:
    """Such as llama_router_8080; without a port if the page has that of its scheme."""
    _, colon, port = request.environ.get("HTTP_HOST", "").rpartition(":")
    return f"{COOKIE}_{port}" if colon and port.isascii() and port.isdecimal() else COOKIE


def sealed(role: RoleName, access: Access) -> str:
    """A new session as a cookie's value."""
    return _text(_serializer(access, SESSION).dumps([role, access.of(role).era]))


def opened(value: str, access: Access) -> Session | None:
    """The session of a cookie's value; None if it is forged, of another era, or over."""
    try:
        content, begun = _serializer(access, SESSION).loads(value, max_age=LIFE_SECONDS, return_timestamp=True)
    except BadData:
        return None
    for role in ROLES:
        if content == [role, access.of(role).era]:
            return Session(role, value, time.time() - begun.timestamp() > RENEWED_AFTER_SECONDS)
    return None


def _serializer(access: Access, purpose: str) -> URLSafeTimedSerializer:
    options = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
    return URLSafeTimedSerializer(access.secret, salt=purpose, signer_kwargs=options)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()
