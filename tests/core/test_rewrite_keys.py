"""What `request` may take out of the bodies of requests."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from supervisor.core.preset import Preset


def test_the_model_stays_in_a_request() -> None:
    with pytest.raises(ValidationError, match="cannot remove 'model'"):
        Preset.model_validate({"name": "m", "model": "/m", "request": {"remove": ["user", "model"]}})
    renamed = Preset.model_validate(
        {"name": "m", "model": "/m", "request": {"set": {"model": "x"}, "remove": ["user"]}}
    )
    assert renamed.request is not None and renamed.request.set == {"model": "x"}
