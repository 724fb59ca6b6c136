"""Events of devices where there is nobody to tell of them; real ones are tests/rigs/kernel's."""

import sys

import pytest

from sbe import errors
from sbe.kernel.uevents import Uevents


def test_without_pyudev_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pyudev", None)
    with pytest.raises(errors.LinkError, match="telling of devices needs pyudev"):
        Uevents("rpmsg")
