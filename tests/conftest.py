"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

# How long an example takes is up to what else the machine does. Hypothesis knows that of CI alone.
settings.register_profile("patient", settings.default, deadline=None)
settings.load_profile("patient")
