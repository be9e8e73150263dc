"""Which page a request comes from: the whole protection against pages that the user of a browser happens to open.

Three kinds of page are told apart. Those of the same origin may do everything. Those of `web.cors_origins` may use
models and read the API. All others may do nothing: without keys, whoever reaches the address may use the models, and a
browser reaches it for every page it shows. The pages of model servers, which llama-router shows under /upstream, are no
dashboard: they get an origin of their own, see PAGES.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from admin.callers import key_of
from supervisor.errors import Refused

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

EVERYBODY = "*"
LOCALHOST = "localhost"

# What the names begin with that show nothing but model servers' pages, such as upstream.localhost, which browsers take
# for this machine without asking. So these pages have an origin, with all that belongs to it, and not the dashboard's.
PAGES = "upstream."

_LOCAL = re.compile(r"(https?|tauri)://(([a-z0-9-]+\.)*localhost|127\.[0-9]+\.[0-9]+\.[0-9]+|\[::1\])(:[0-9]+)?")
_DEFAULT_PORT = re.compile(r"^(http)(://[^/]*?):80$|^(https)(://[^/]*?):443$")
# Names that nobody can point elsewhere on the internet: addresses, names without a dot, and those of local networks.
_SAFE_HOST = re.compile(r"\[.*|[0-9.]+|[^.]*|.*\.(localhost|local|internal|lan|home\.arpa)")


class Origins:
    """The pages of other origins that may use models: what `web.cors_origins` lists.

    "localhost" is every page that this machine itself serves, "*" every page there is.
    """

    def __init__(self, listed: str) -> None:
        """`listed` is separated by spaces."""
        words = {_plain(word) for word in listed.split()}
        self.everybody = EVERYBODY in words
        self._localhost = LOCALHOST in words
        self._listed = frozenset(words)
        self._hosts = frozenset(word.partition("://")[2] for word in words)

    def allow(self, origin: str) -> bool:
        """Whether pages of `origin` (an Origin header's value) may use models."""
        plain = _plain(origin)
        return self.everybody or plain in self._listed or (self._localhost and _LOCAL.fullmatch(plain) is not None)

    def know(self, host: str) -> bool:
        """Whether a Host header's value is none that a page could have been given to reach a loopback address.

        DNS rebinding: a page of evil.example, whose name is made to mean 127.0.0.1, is of the same origin as what it
        asks there. Such a name has a dot and is public; a reverse proxy's own name is listed.
        """
        host = host.lower()
        return self.everybody or host in self._hosts or _SAFE_HOST.fullmatch(_without_port(host)) is not None


def refuse_foreign_pages(environ: WSGIEnvironment) -> None:
    """Raise Refused (403) for a request that a page of another origin made the browser send.

    One that shows a key is no forgery: no browser adds that by itself.
    """
    if is_foreign(environ) and key_of(environ) is None:
        raise _refused("a page of another site may not do this")


def refuse_pages(environ: WSGIEnvironment, origins: Origins) -> None:
    """Raise Refused (403) unless pages like the request's may use models, or it shows a key."""
    if not is_foreign(environ) or origins.everybody or key_of(environ) is not None:
        return
    if not ((origin := environ.get("HTTP_ORIGIN")) and origins.allow(origin)):
        raise _refused("a page of another site may not do this unless web.cors_origins in config.yaml lists its origin")


def refuse_foreign_names(environ: WSGIEnvironment, origins: Origins) -> None:
    """Raise Refused (403) for a request to a loopback address that was given a name of elsewhere (DNS rebinding)."""
    host = environ.get("HTTP_HOST", "")
    if not origins.know(host) and _is_loopback(environ):
        raise _unknown_name(host)


def refuse_strange_names(environ: WSGIEnvironment, origins: Origins) -> None:
    """As refuse_foreign_names, at whatever address: for the pages that people sign in to.

    On a local network, too, a page of elsewhere could be of the same origin, and try passwords. This machine's own
    name is none of elsewhere, even with a dot.
    """
    host = environ.get("HTTP_HOST", "")
    if not (origins.know(host) or _without_port(host).lower() == os.uname().nodename.lower()) and _came_over_tcp(
        environ
    ):
        raise _unknown_name(host)


def is_foreign(environ: WSGIEnvironment) -> bool:
    """Whether a page of another origin made the browser send the request.

    It needs no token: every current browser sends Sec-Fetch-Site (Fetch Metadata, W3C), which a page can't forge, and
    older ones send Origin with each POST. Clients that are no browsers send neither and are not what this is about.
    "none" is the user's own doing (address bar). That a body is called JSON or not is no criterion: a page can send
    any body as text/plain without asking.
    """
    if environ.get("HTTP_SEC_FETCH_SITE") in ("cross-site", "same-site"):
        return True
    origin = environ.get("HTTP_ORIGIN")
    return origin is not None and not _is_own(origin, environ)


def is_for_pages(environ: WSGIEnvironment) -> bool:
    """Whether the request was given a name of PAGES."""
    return bool(environ.get("HTTP_HOST", "").lower().startswith(PAGES))


def is_visit(environ: WSGIEnvironment) -> bool:
    """Whether somebody follows a link to a model server's page, from whatever page: it is shown, not framed or read."""
    shown = environ.get("HTTP_SEC_FETCH_MODE") == "navigate" and environ.get("HTTP_SEC_FETCH_DEST") == "document"
    return shown and is_for_pages(environ) and environ["REQUEST_METHOD"] in ("GET", "HEAD")


def refuse_visits(environ: WSGIEnvironment) -> None:
    """Raise Refused (403) for a model server's page that would be shown as one of the dashboard's origin.

    Browsers send no Sec-Fetch-Mode to addresses that are neither https nor local; there they ask for pages, and for
    nothing else, with Upgrade-Insecure-Requests.
    """
    mode = environ.get("HTTP_SEC_FETCH_MODE")
    is_page = mode == "navigate" or (mode is None and environ.get("HTTP_UPGRADE_INSECURE_REQUESTS") == "1")
    if is_page and not is_for_pages(environ):
        example = f"{PAGES}{LOCALHOST}{_port(environ.get('HTTP_HOST', ''))}"
        raise _refused(
            f"a model server's pages need an origin of their own: ask a name that begins with '{PAGES}', such as "
            f"http://{example}{environ['PATH_INFO']}"
        )


def _is_own(url: str, environ: WSGIEnvironment) -> bool:
    host = url.partition("://")[2].partition("/")[0].lower()
    return bool(host) and host == environ.get("HTTP_HOST", "").lower()


def _is_loopback(environ: WSGIEnvironment) -> bool:
    """Whether the connection came in at a loopback address."""
    return _own_address(environ).removeprefix("::ffff:").startswith(("127.", "::1"))


def _came_over_tcp(environ: WSGIEnvironment) -> bool:
    """Whether it did not on a UNIX socket, which no browser can use."""
    return _own_address(environ) != ""


def _own_address(environ: WSGIEnvironment) -> str:
    client = environ.get("gunicorn.socket")
    address = client.getsockname() if client is not None else ""
    return str(address[0]) if isinstance(address, tuple) else ""


def _plain(origin: str) -> str:
    """In lower case and without the port that the scheme implies, as browsers write it."""
    return _DEFAULT_PORT.sub(lambda match: "".join(filter(None, match.groups())), origin.lower().rstrip("/"))


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host


def _port(host: str) -> str:
    return host[len(_without_port(host)) :]


def _unknown_name(host: str) -> Refused:
    message = f"{host!r} is no name of this machine; if it is a reverse proxy's, list it in web.cors_origins"
    return _refused(f"{message} as https://{host}")


def _refused(message: str) -> Refused:
    return Refused(message, status=403, error_type="permission_error")
