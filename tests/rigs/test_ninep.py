"""Files that firmware on an emulated Cortex-M serves by 9P."""

from __future__ import annotations

import random

import pytest

import sbe
from tests.integration import test_ninep as on_the_host
from tests.integration.ninep import Client, served

pytestmark = [pytest.mark.rig, pytest.mark.timeout(120)]


@pytest.mark.parametrize("msize", [512, 8192, 65536, 1 << 20])
def test_content_by_reference(link: sbe.Connection, msize: int) -> None:
    data = random.Random(msize).randbytes(300_001 if msize > 512 else 20_000)
    with served(link, msize) as client:
        assert client.msize == msize
        client.write("ram/file", data)
        assert client.read("ram/file") == data
        client.unlink("ram/file")


@pytest.mark.parametrize(
    "check",
    [
        on_the_host.test_what_is_there,
        on_the_host.test_places_within_a_file,
        on_the_host.test_directories,
        on_the_host.test_renaming,
        on_the_host.test_a_setting_has_its_effect_and_is_logged,
        on_the_host.test_remove_ends_the_fid_in_any_case,
    ],
)
def test_as_on_the_host(link: sbe.Connection, check: object) -> None:
    assert callable(check)
    with served(link) as client:
        check(client)


def test_the_log_has_what_the_console_shows(link: sbe.Connection) -> None:
    with served(link) as client:
        assert client.read("log").startswith(b"sbe-firmware on mps2-")


def test_its_tables_are_full(link: sbe.Connection) -> None:
    def fill(client: Client) -> int:
        fid = client.create("ram/file")
        client.write_all(fid, bytes(client.free()[0] * 1024))
        with on_the_host.refused(28):
            client.write_at(fid, client.attributes_of(fid).size, b"x")
        client.clunk(fid)
        client.unlink("ram/file")
        return client.free()[0]

    with served(link) as client:
        assert fill(client) == fill(client) == 512
        fids = []
        with on_the_host.refused(23):
            for _ in range(100):
                fids.append(client.walk("ram"))
        assert len(fids) == 63
