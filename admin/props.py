"""GET /props of llama-server's router itself, and what its WebUI asks for beside models.

/props?model=NAME is the model server's own; the proxy serves that.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint

from admin.supervision import status
from supervisor.errors import Refused

blueprint = Blueprint("props", __name__)

Json = dict[str, Any]


@blueprint.get("/props")
@blueprint.get("/v1/props")
def props() -> Json:
    """What this router is; keys, order and dummies of llama-server's get_router_props."""
    answer = status()
    return {
        "role": "router",
        "max_instances": answer.get("max_models", 0),
        "models_autoload": answer["autoload"],
        "model_alias": "llama-server",
        "model_path": "none",
        "default_generation_settings": {"params": None, "n_ctx": 0},
        "ui_settings": {},
        # Clients take it for llama.cpp's bNUMBER-COMMIT.
        "build_info": f"b0-llama-router-{answer['version']}",
        "cors_proxy_enabled": False,
    }


@blueprint.route("/cors-proxy", methods=["GET", "POST"])
@blueprint.route("/tools", methods=["GET", "POST"])
def disabled() -> Json:
    """What llama-server says while its MCP proxy and its tools are switched off. Raises Refused (403)."""
    raise Refused("this feature is disabled", status=403, error_type="feature_disabled")
