"""The host's side of one host-remote pair, without threads and without an event loop."""

from sbe.link.connection import Services, State
from sbe.link.link import AreaInfo, ChannelInfo, Link, ServiceInfo
from sbe.link.pending import Pending
from sbe.link.power import Answer, OnPower, PowerRequest

__all__ = [
    "Answer",
    "AreaInfo",
    "ChannelInfo",
    "Link",
    "OnPower",
    "Pending",
    "PowerRequest",
    "ServiceInfo",
    "Services",
    "State",
]
