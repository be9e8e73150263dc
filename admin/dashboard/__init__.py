"""The dashboard: pages for people, a blueprint each, live through one event stream."""

from __future__ import annotations

from flask import Flask

from admin.dashboard import access, activity, log, login, model, models, playground, presets, stream, system
from admin.dashboard.pages import Page

# The pages of the navigation, in its order.
PAGES = (
    Page("models", "Models", models.blueprint),
    Page("playground", "Playground", playground.blueprint),
    Page("presets", "Presets", presets.blueprint),
    Page("activity", "Activity", activity.blueprint),
    Page("system", "System", system.blueprint),
)
PARTS = (model.blueprint, log.blueprint, stream.blueprint, login.blueprint)


def register(app: Flask) -> None:
    """Serve all pages. Raises TypeError for a view that does not say who may see it."""
    for page in PAGES:
        app.register_blueprint(page.blueprint)
    for part in PARTS:
        app.register_blueprint(part)
    app.context_processor(lambda: {"pages": _reachable(app)})
    access.register(app, (*(page.blueprint for page in PAGES), *PARTS))


def _reachable(app: Flask) -> list[Page]:
    """The pages that whoever sent the request may see."""
    role = access.current_role()
    return [page for page in PAGES if access.role_of(app.view_functions[f"{page.name}.index"]) <= role]
