"""Who may open the dashboard: what access.json and the one-time link's file say, and how a password is checked.

    access.json  {"format": 1, "secret": HEX, "salt": HEX,
                  "admin": {"hash": HEX or null, "era": HEX}, "viewer": {"hash": HEX or null, "era": HEX}}
    login-token  {"sha256": HEX, "era": HEX}

`secret` signs sessions. An `era` is a random name for the time between two changes of a role's password: sessions and
the link carry it, and end with it. All passwords have one salt, so that a password that is tried is hashed once,
whichever roles have one: neither the time nor the answer tells more.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

ACCESS_FILE = "access.json"  # in the state directory
TOKEN_FILE = "login-token"  # noqa: S105  # in the runtime directory
FAILURES_FILE = "login-failures"  # there too; the web tier's
FORMAT = 1
MAX_FILE = 4096  # bytes of either file

MIN_CHARACTERS = 8
MAX_BYTES = 1024
SECRET_BYTES = 32
ERA_BYTES = 8

# scrypt's cost (RFC 7914): 32 MiB and some 0.2 s. One of those that OWASP's Password Storage Cheat Sheet lists.
COST = 2**15
BLOCKS = 8
PASSES = 3
HASH_BYTES = 32

RoleName = Literal["admin", "viewer"]
ROLES: tuple[RoleName, ...] = ("admin", "viewer")


class UnusablePassword(ValueError):
    """A password that can't be set; the message says what to choose instead."""


@dataclass(frozen=True)
class Credential:
    """What one role signs in with; without a `hash` nobody does so by a password."""

    hash: bytes | None
    era: str


@dataclass(frozen=True)
class Access:
    """The whole of access.json."""

    secret: bytes
    salt: bytes
    admin: Credential
    viewer: Credential

    def of(self, role: RoleName) -> Credential:
        """One role's."""
        return self.admin if role == "admin" else self.viewer

    def role_of(self, hashed: bytes) -> RoleName | None:
        """Whose password has this hash; the time this takes is the same for everybody and nobody."""
        nobodys = bytes(HASH_BYTES)
        found = {role: hmac.compare_digest(self.of(role).hash or nobodys, hashed) for role in ROLES}
        return next((role for role in ROLES if found[role] and self.of(role).hash is not None), None)

    def changed(self, role: RoleName, hashed: bytes | None, era: str) -> Access:
        """With another password of `role`, or with none. Raises UnusablePassword for the other role's."""
        if hashed is not None and self.role_of(hashed) not in (None, role):
            raise UnusablePassword("admin and viewer are told apart by their passwords alone; choose another one")
        credential = Credential(hashed, era)
        return replace(self, admin=credential) if role == "admin" else replace(self, viewer=credential)


def new(secret: bytes, salt: bytes, eras: tuple[str, str]) -> Access:
    """Without passwords, of random values."""
    return Access(secret, salt, Credential(None, eras[0]), Credential(None, eras[1]))


def check(password: str) -> None:
    """Raise UnusablePassword unless it can be set, and typed into a browser."""
    if len(password) < MIN_CHARACTERS:
        raise UnusablePassword(f"it has {len(password)} characters; choose one of {MIN_CHARACTERS} or more")
    if is_too_long(password):
        raise UnusablePassword(f"it is longer than {MAX_BYTES} bytes; choose a shorter one")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in password):
        raise UnusablePassword("it has a character that can't be typed into a page, such as a tab; leave that out")


def is_too_long(password: str) -> bool:
    """Whether it can be no password at all."""
    return len(password) > MAX_BYTES or len(_encoded(password)) > MAX_BYTES


def hash_of(password: str, salt: bytes) -> bytes:
    """scrypt; takes a fifth of a second. The same for whatever form of a character a keyboard makes."""
    return hashlib.scrypt(
        _encoded(password), salt=salt, n=COST, r=BLOCKS, p=PASSES, maxmem=2 * 128 * COST * BLOCKS, dklen=HASH_BYTES
    )


def token_file(token: str, access: Access) -> bytes:
    """What TOKEN_FILE holds of a link's token: nothing that would sign anybody in."""
    return _json({"sha256": _digest(token), "era": access.admin.era})


def is_token(token: str, data: bytes, access: Access) -> bool:
    """Whether TOKEN_FILE's `data` is of this token, and of the time since the admin's password was last changed."""
    try:
        fields = _object(data)
        digest, era = _text(fields, "sha256"), _text(fields, "era")
    except ValueError:
        return False
    same = hmac.compare_digest(digest.encode(), _digest(token).encode())
    return same and era == access.admin.era


def written(access: Access) -> bytes:
    """access.json's content."""
    roles = {role: {"hash": _hex(access.of(role).hash), "era": access.of(role).era} for role in ROLES}
    head = {"format": FORMAT, "secret": access.secret.hex(), "salt": access.salt.hex()}
    return _json(head | roles)


def parse(data: bytes) -> Access:
    """Raises ValueError, without a word of what is in it, for what `written` did not write."""
    fields = _object(data)
    if fields.get("format") != FORMAT:
        raise ValueError(f"it is not of format {FORMAT}")
    secret, salt = _bytes(fields, "secret"), _bytes(fields, "salt")
    if min(len(secret), len(salt)) < SECRET_BYTES:
        raise ValueError("its secret or its salt is cut off")
    return Access(secret, salt, _credential(fields, "admin"), _credential(fields, "viewer"))


def _credential(fields: Mapping[str, Any], role: RoleName) -> Credential:
    entry = fields.get(role)
    if not isinstance(entry, dict):
        raise ValueError(f"it has no {role}")
    era = _text(entry, "era")
    if len(era) < 2 * ERA_BYTES:
        raise ValueError(f"the era of {role} is cut off")
    hashed = None if entry.get("hash", "") is None else _bytes(entry, "hash")
    if hashed is not None and len(hashed) != HASH_BYTES:
        raise ValueError(f"the hash of {role} is cut off")
    return Credential(hashed, era)


def _object(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_FILE:
        raise ValueError(f"it has more than {MAX_FILE} bytes")
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(fields, dict):
        raise ValueError("it is not a JSON object")
    return fields


def _text(fields: Mapping[str, Any], key: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str):
        raise ValueError(f"its {key} is no text")
    return value


def _bytes(fields: Mapping[str, Any], key: str) -> bytes:
    try:
        return bytes.fromhex(_text(fields, key))
    except ValueError:
        raise ValueError(f"its {key} is not hexadecimal") from None


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1).encode() + b"\n"


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def _encoded(password: str) -> bytes:
    return unicodedata.normalize("NFC", password).encode(errors="replace")
