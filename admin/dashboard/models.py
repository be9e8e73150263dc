"""The first page: every model, its state and the reason of its last end, and the queue.

It works without JavaScript (forms, and a reload of the page). With it, the page fetches its table anew from /ui/models
when the event stream says that something changed.
"""

from __future__ import annotations

from flask import Response, make_response, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from admin.dashboard.access import Role, needs
from admin.dashboard.activity import rates
from admin.dashboard.pages import is_a_script, new_blueprint
from admin.handlers import respond
from admin.origin import refuse_foreign_pages
from admin.supervision import ask, status
from admin.view import view
from supervisor.errors import Refused

blueprint = new_blueprint("models")


@blueprint.get("/")
@needs(Role.VIEWER)
def index() -> str:
    """The page."""
    return page()


@blueprint.get("/ui/models")
@needs(Role.VIEWER)
def table() -> str:
    """The part of the page that changes."""
    return render_template("models_table.html", **view(status(), rates()))


@blueprint.post("/ui/models/<any(load, unload, restart, reset):action>")
@needs(Role.ADMIN)
def act(action: str) -> BaseResponse:
    """A button; a script is answered without a page."""
    refuse_foreign_pages(request.environ)
    ask(action, model=request.form.get("model", ""), wait=False)
    if is_a_script():
        return Response(status=204)
    return redirect(url_for("models.index"), code=303)


@blueprint.errorhandler(Refused)
def refused(refusal: Refused) -> Response:
    """The page again, with what the supervisor said no to."""
    if is_a_script():
        return respond(refusal)
    return make_response(page(str(refusal)), refusal.status)


def page(error: str | None = None) -> str:
    """The whole page, with a message on top if `error` is given. Raises NotRunning or ProtocolError."""
    return render_template("models.html", error=error, **view(status(), rates()))
