"""Whom a request of the API is from, as gate.py found out: what they may do is asked of this."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from supervisor.core.keys import Key
from supervisor.errors import Refused

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

CALLER = "llama_router.caller"
BEARER = "bearer"
FOR_ADMINS = "you are signed in as viewer, and only the admin may do this"


@dataclass(frozen=True)
class Caller:
    """Somebody with a `key`, somebody who is signed in as viewer (`is_viewer`), or whoever may do everything: the
    admin, and anybody where no key is needed."""

    key: Key | None = None
    is_viewer: bool = False

    @property
    def sees_all(self) -> bool:
        """Whether every model is theirs to use."""
        return self.key is None or self.key.allows_all

    def sees(self, names: Iterable[str]) -> bool:
        """Whether the model of these names, its own and its aliases, is."""
        return self.key is None or self.key.allows(names)

    def check_sees(self, asked: str, names: Iterable[str]) -> None:
        """Raise Refused (403) unless it is; `asked` is the name that they used."""
        if not self.sees(names):
            raise not_theirs(asked)

    def check_manages(self) -> None:
        """Raise Refused (403) for those who only use models."""
        if self.is_viewer:
            raise Refused(FOR_ADMINS, status=403, error_type="permission_error")

    def check_manages_all(self) -> None:
        """The same for what concerns all models."""
        self.check_manages()
        if not self.sees_all:
            message = "this concerns all models, and this key is for some of them"
            raise Refused(message, status=403, error_type="permission_error")


def caller_of(environ: WSGIEnvironment) -> Caller:
    """Of a request that gate.py let through; raises KeyError for any other."""
    caller: Caller = environ[CALLER]
    return caller


def key_of(environ: WSGIEnvironment) -> Key | None:
    """The key that a request showed, None for one without, or that did not come as far."""
    caller = environ.get(CALLER)
    return caller.key if isinstance(caller, Caller) else None


def shown(environ: WSGIEnvironment) -> str:
    """What a request shows as its key, "" if nothing: that in Authorization, or else in X-Api-Key.

    An Authorization of another scheme, such as the Basic of a reverse proxy, holds none and hides none.
    """
    return _key_in(environ.get("HTTP_AUTHORIZATION", ""), has_scheme=True) or _key_in(environ.get("HTTP_X_API_KEY", ""))


def _key_in(value: str, *, has_scheme: bool = False) -> str:
    """`has_scheme`: of several words, the first is an authentication scheme (RFC 9110 §11.4)."""
    first, _, rest = value.strip().partition(" ")
    if first.lower() == BEARER:
        return rest.strip()
    return "" if has_scheme and rest else value.strip()


def not_theirs(model: str) -> Refused:
    """For a model that a key is not for."""
    return Refused(f"this key may not use model '{model}'", status=403, error_type="permission_error")
