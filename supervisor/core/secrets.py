"""What of command lines and settings is nobody's business, told by the names of options, variables and headers."""

from __future__ import annotations

import re
from collections.abc import Sequence

HIDDEN = "***"
# Words of the name of an option or a variable whose value is nobody's business.
_SECRET = frozenset(
    {"key", "keys", "apikey", "token", "secret", "password", "passwd", "passphrase", "credential", "credentials"}
    | {"auth", "authorization", "cookie"}
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
# Within an argument, what gives a value to a name: "--name value", "NAME=value", "Name: value", '"name": value'.
_GIVEN = re.compile(r"""(?<![\w.-])(?:-[\w.-]*+\s|[\w.-]++["']?\s*+[:=])\s*+(?=\S)""")
# curl's "name:password" after one of these, in an argument of its own or within a shell's. Two numbers are the ids of
# a user and a group, as other programs want them there; a URL is none.
_LOGIN_OPTIONS = frozenset({"-u", "-U", "--user", "--proxy-user"})
_LOGIN = re.compile(r"(?!\d+:\d+$)[^:]+:(?!//)(?=.)", re.DOTALL)
_GIVEN_LOGIN = re.compile(
    r"""(?<!\S)(?:-[uU]|--(?:proxy-)?user(?=[\s=]))[\s=]*+["']?(?!\d+:\d+(?!\S))[^\s:"']++:(?!//)(?=\S)"""
)
_PASSWORD_OF_URL = re.compile(r"(://[^\s/:@]*+:)[^\s/]+@")
# Of a web server's, the name may be a token as well.
_LOGIN_OF_URL = re.compile(r"(https?://)(?:[^\s/?#:@]++|[^\s/:@]*+:[^\s/]*)@", re.IGNORECASE)


def without_secrets(command: Sequence[str]) -> list[str]:
    """A command line whose values are hidden where their names say that they are secrets; so are passwords of curl's
    logins and of URLs.

    Names are those of options, of variables (NAME=value) and of headers (Name: value).
    """
    shown: list[str] = []
    hide, before = False, ""
    for argument in command:
        is_option = argument.startswith("-")
        if before in _LOGIN_OPTIONS and not is_option and (login := _LOGIN.match(argument)):
            hidden = argument[: login.end()] + HIDDEN
        else:
            hidden = HIDDEN if hide and not is_option else _without_values(argument)
        before = argument
        shown.append(hidden)
        hide = is_option and hidden == argument and "=" not in argument and is_secret(argument)
    return shown


def _without_values(argument: str) -> str:
    """Cut at the first secret, as nobody knows where that ends."""
    given = next((given for given in _GIVEN.finditer(argument) if is_secret(given[0])), None)
    ends = [found.end() for found in (given, _GIVEN_LOGIN.search(argument)) if found is not None]
    shown = argument[: min(ends)] + HIDDEN if ends else argument
    return _PASSWORD_OF_URL.sub(rf"\1{HIDDEN}@", _LOGIN_OF_URL.sub(rf"\1{HIDDEN}@", shown))


def is_secret(name: str) -> bool:
    """True for names such as --api-key, hf_token and AWS_SECRET_ACCESS_KEY; not for --max-tokens."""
    return not _SECRET.isdisjoint(word.lower() for word in _WORD.findall(name))
