"""What `list()` and `stat()` say has one form, whoever holds the link."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import sbe
from sbe.link import description


def names(kind: type[Any]) -> set[str]:
    return {each.name for each in fields(kind)}


def test_items_of_list(link: sbe.Connection) -> None:
    area = link.allocate(8192)
    link.serve("described", lambda payload: payload)
    listed = link.list()
    for kind, form in (
        ("links", description.LinkEntry),
        ("contexts", description.ContextEntry),
        ("areas", description.AreaEntry),
        ("channels", description.ChannelEntry),
        ("services", description.ServiceEntry),
    ):
        assert listed[kind]
        assert all(item.keys() == names(form) for item in listed[kind]), kind
    [own] = [each for each in listed["areas"] if each["id"] == area.id and each["size"] == 8192]
    assert own["context"] != 0
    assert ("described", own["context"]) in {
        (each["name"], each["context"]) for each in listed["services"]
    }
    assert 0 in {each["context"] for each in listed["services"]}


def test_items_of_stat(link: sbe.Connection) -> None:
    link.call("echo", payload=b"counted")
    counted = link.stat()
    for kind, form in (("links", description.LinkStat), ("channels", description.ChannelStat)):
        assert counted[kind]
        assert all(item.keys() == names(form) for item in counted[kind]), kind
    own = counted["connection"]
    [channel] = [
        each
        for each in counted["channels"]
        if (each["context"], each["id"]) == (own["context"], own["channel"])
    ]
    assert channel["frames_to_remote"] >= 1
    assert all(each["uptime_seconds"] >= 0 for each in counted["links"])
