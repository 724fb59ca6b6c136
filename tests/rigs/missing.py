# SPDX-License-Identifier: Apache-2.0
"""What can't run here: skipped with its reason; under SBE_RIGS=required, one failure a reason.

Hundreds of tests may need the same rig. The first that finds it missing fails, in whichever
process of a run that is; the others are skipped with the same words, so that the reason is read.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Literal, NoReturn

import pytest

_RUN = "SBE_TEST_RUN"  # environment: a folder of this run, for all of its processes


def pytest_configure(config: pytest.Config) -> None:
    """The folder of the run, made by the process that starts the others."""
    if not hasattr(config, "workerinput") and "SBE_RIG_GUEST" not in os.environ:
        folder = os.environ[_RUN] = tempfile.mkdtemp(prefix="sbe-tests-")
        config.add_cleanup(partial(shutil.rmtree, folder))


def outcome(reason: str) -> Literal["failed", "skipped"]:
    """What a test comes to that can't run for this reason; its first line says which it is."""
    if os.environ.get("SBE_RIGS") != "required":
        return "skipped"
    said = Path(os.environ[_RUN], hashlib.sha256(reason.partition("\n")[0].encode()).hexdigest())
    try:
        said.touch(exist_ok=False)
    except FileExistsError:
        return "skipped"
    return "failed"


def give_up(reason: str) -> NoReturn:
    """End this test: a rig that it needs is not there, or doesn't run."""
    if outcome(reason) == "failed":
        pytest.fail(f"{reason}, and SBE_RIGS=required")
    pytest.skip(reason)


def require(ready: bool, reason: str) -> None:
    """Give up unless it is ready."""
    if not ready:
        give_up(reason)
