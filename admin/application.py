"""The WSGI application; wiring only. gunicorn's master imports this before it forks, so that workers share what it is
made of; gevent patches the standard library in each worker, behind that.

So nothing that is imported here may begin anything: no thread, no hub of gevent's, no file or connection that is kept.
"""

from __future__ import annotations

import os
from pathlib import Path

from flask import Flask

from admin import dashboard, handlers, metrics, models, props, streams
from admin.activity import Activity
from admin.cors import Cors
from admin.forwarded import Forwarded
from admin.gate import Gate
from admin.json_answers import JsonAnswers
from admin.key_usage import KeyUsage
from admin.keys import Keys
from admin.latest import Latest
from admin.leases import Leases
from admin.origin import LOCALHOST, Origins
from admin.passthrough import Names
from admin.proxy import Proxy
from admin.sampling import Sampling
from admin.supervision import ANSWER_SECONDS


def create_app(runtime_dir: str | None = None, state_dir: str | None = None) -> Flask:
    """`runtime_dir` (default: $LLAMA_ROUTER_RUNTIME_DIR) holds the control socket, `state_dir` (default:
    $LLAMA_ROUTER_STATE_DIR) what outlives a restart.

    Raises KeyError when one is given in neither way.
    """
    here = Path(__file__).parent
    inside = here / "templates"  # the wheel carries them inside the package, a checkout beside it
    app = Flask(__name__, template_folder=str(inside if inside.is_dir() else here.parent / "templates"))
    app.config["RUNTIME_DIR"] = Path(runtime_dir or os.environ["LLAMA_ROUTER_RUNTIME_DIR"])
    app.config["STATE_DIR"] = Path(state_dir or os.environ["LLAMA_ROUTER_STATE_DIR"])
    app.config["ORIGINS"] = origins = Origins(os.environ.get("LLAMA_ROUTER_CORS_ORIGINS", LOCALHOST))
    app.config["MAX_CONTENT_LENGTH"] = models.MAX_BODY
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.merge_slashes = False  # else an API path with "//" is answered with an HTML redirect
    app.json = JsonAnswers(app)
    runtime = app.config["RUNTIME_DIR"]
    latest = app.extensions["latest"] = Latest(runtime, ANSWER_SECONDS)
    app.register_blueprint(models.blueprint)
    app.register_blueprint(props.blueprint)
    app.register_blueprint(metrics.blueprint)
    activity = app.extensions["activity"] = Activity(app.config["STATE_DIR"])
    dashboard.register(app)
    app.register_blueprint(streams.blueprint)
    handlers.register(app)
    sampling = app.extensions["sampling"] = Sampling(latest, app.config["STATE_DIR"], activity)
    usage = KeyUsage(app.config["STATE_DIR"])
    proxy = Proxy(app.wsgi_app, Leases(runtime), Names(latest), origins, activity, sampling, usage)
    keys = app.extensions["keys"] = Keys.of_environment(app.config["STATE_DIR"], os.environ)
    gate = Gate(proxy, keys, app.extensions["llama_router_credentials"])
    trusted = os.environ.get("LLAMA_ROUTER_TRUSTED_PROXIES", "")
    app.wsgi_app = Forwarded(Cors(gate, origins), trusted)  # type: ignore[method-assign]
    return app
