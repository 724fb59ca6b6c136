"""All kinds of clients, by name."""

from __future__ import annotations

from tests.soak.kinds import (
    Async,
    Batch,
    Forking,
    Greedy,
    Impatient,
    Kind,
    Long,
    Mortal,
    Plain,
    Pooled,
    Serving,
    Staging,
    Tight,
)
from tests.soak.streaming import Streaming

__all__ = ["KINDS"]

KINDS: dict[str, type[Kind]] = {
    "plain": Plain,
    "async": Async,
    "batch": Batch,
    "staging": Staging,
    "serving": Serving,
    "pooled": Pooled,
    "forking": Forking,
    "mortal": Mortal,
    "impatient": Impatient,
    "long": Long,
    "tight": Tight,
    "greedy": Greedy,
    "streaming": Streaming,
}
