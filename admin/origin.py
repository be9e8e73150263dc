"""Which page a request comes from: the whole protection against cross-site request forgery."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.errors import Refused

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment


def refuse_foreign_pages(environ: WSGIEnvironment) -> None:
    """Raise Refused (403) for a request that a page of another site made the browser send.

    It needs no token: every current browser sends Sec-Fetch-Site (Fetch Metadata, W3C), which a page can't forge, and
    older ones send Origin with each POST. Clients that are no browsers send neither and are not what this is about.
    "none" is the user's own doing (address bar). That a body is called JSON or not is no criterion: a page can send
    any body as text/plain without asking.
    """
    site = environ.get("HTTP_SEC_FETCH_SITE")
    origin = environ.get("HTTP_ORIGIN")
    foreign = site in ("cross-site", "same-site")
    if origin is not None:
        foreign = foreign or origin.partition("://")[2].lower() != environ.get("HTTP_HOST", "").lower()
    if foreign:
        raise Refused("a page of another site may not do this", status=403, error_type="permission_error")
