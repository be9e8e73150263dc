"""llama-server's resumable streams, of which there are none here: an answer ends with its connection.

Paths and answers are those of llama-server's router for conversations it does not know (llama.cpp b11434,
server-models.cpp); its page then goes on without.
"""

from __future__ import annotations

from flask import Blueprint, Response, request

from admin.errors import invalid
from supervisor.errors import Refused

blueprint = Blueprint("streams", __name__)


@blueprint.get("/v1/stream")
def resume() -> Response:
    """Raises Refused: 400 without a conversation, else 404."""
    check()
    raise Refused("Stream not found or expired", status=404, error_type="not_found_error")


@blueprint.delete("/v1/stream")
def stop() -> Response:
    """204: a client stops an answer by hanging up. Raises Refused (400) without a conversation."""
    check()
    return Response(status=204)


@blueprint.post("/v1/streams/lookup")
def lookup() -> list[str]:
    """Those of the conversations asked for that have a stream: none."""
    return []


def check() -> None:
    """Raise Refused (400) without ?conv_id=."""
    if not request.args.get("conv_id"):
        raise invalid("Missing conversation id in path")
