"""Streams against every end of this project."""

from __future__ import annotations

from sbe.testing.conformance.test_stream_queue import *
