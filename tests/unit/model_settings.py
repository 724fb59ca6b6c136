"""How long the models are run against the code, and the same examples in each run."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

__all__ = ["SETTINGS"]

SETTINGS = settings(
    max_examples=1000,
    stateful_step_count=40,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
