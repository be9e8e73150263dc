"""Signing in to a web tier that has the passwords ADMIN and VIEWER."""

from __future__ import annotations

from urllib.parse import urlencode

from web_tier import Answer, WebTier

from supervisor import access

ADMIN, VIEWER = "the admin's own", "the viewers' one"
FORM = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": ""}
NOBODY = {"Cookie": ""}


def tell(line: str) -> None:
    raise AssertionError(line)


def sign_in(tier: WebTier, headers: dict[str, str] | None = None, **fields: str) -> Answer:
    return tier.request("POST", "/ui/login", urlencode(fields).encode(), FORM | (headers or {}))


def link(tier: WebTier) -> str:
    return access.new_link(tier.state_dir, tier.runtime_dir, tell)


def role_of(tier: WebTier, answer: Answer) -> str | None:
    """Who the browser with this answer's cookie is."""
    headers = {"Cookie": answer.headers.get("set-cookie", "").partition(";")[0], "Accept": "application/json"}
    told = tier.request("GET", "/ui/session", headers=headers)
    return told.json["role"] if told.status == 200 else None
