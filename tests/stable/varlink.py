"""The daemon's interface, as `org.varlink.service` tells of it."""

from __future__ import annotations

from sbe.daemon.service import ControlInterface

__all__ = ["lines"]


def lines() -> list[str]:
    """The interface's text without its comments, a declaration a line."""
    text = ControlInterface.render_interface_description().splitlines()
    return [line for line in text if line and not line.startswith("#")]
