# SPDX-License-Identifier: Apache-2.0
"""pytest on both sides of the rig: tests marked `kernel` run inside a guest.

Outside, the first such test of a process boots a guest, which collects the same tests and waits;
each test is then asked for by its id, and the reports come back as if it had run here. Inside, a
fault in the kernel's log fails the test under which it was written.
"""

from __future__ import annotations

import json
import os
import sys
import tty
from pathlib import Path
from typing import Any

import pytest

from tests.rigs import missing
from tests.rigs.kernel.guest import ROOT, Guest, GuestDied, RigMissing, faults, find

INSIDE = "SBE_RIG_GUEST" in os.environ
BOOT_S = 60
SLACK_S = 60  # beyond pytest-timeout's limit inside: for a kernel that hangs
LINES_SHOWN = 100
HANDED_ON = {
    name: os.environ[name]
    for name in ["SBE_REMOTE_RPMSG", "SBE_NINEP_S", "SBE_NINEP_SEED"]
    if name in os.environ
}
"""Settings for tests in the guest: of parts.py, and of test_ninep_random.py."""
OPTIONS = ["-p", "no:cacheprovider", "-p", "no:xdist", "-q"]


def is_kernel_test(item: pytest.Item) -> bool:
    return item.get_closest_marker("kernel") is not None


def limit_s(item: pytest.Item) -> float:
    """What pytest-timeout allows the test; a minute where it is not set up."""
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0] if marker else item.config.getini("timeout") or 60)


def end_of(item: pytest.Item) -> str:
    """The end of the conformance suite that a kernel test runs against, "" for other tests."""
    if not is_kernel_test(item) or not hasattr(item, "callspec"):
        return ""
    return str(item.callspec.params.get("connect", ""))


# -- outside --------------------------------------------------------------------------------------


class NoGuest(Exception):
    """The rig is missing, or its kernel does not boot: none of its tests can run."""


class Outside:
    """Hands the marked tests of this process to one guest, booted when the first one comes."""

    def __init__(self) -> None:
        self._guest: Guest | None = None
        self._why_not: str | None = None
        self._ids: list[str] = []
        self._limits_s: dict[str, float] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        # One remote processor serves a module's tests of one end: keep these together, at the end.
        items.sort(key=lambda item: (is_kernel_test(item), end_of(item)))
        kernel_tests = [item for item in items if is_kernel_test(item)]
        self._ids = [item.nodeid for item in kernel_tests]
        self._limits_s = {item.nodeid: limit_s(item) + SLACK_S for item in kernel_tests}
        for item in kernel_tests:  # pytest-timeout stops them inside; here it would stop pytest
            item.add_marker(pytest.mark.timeout(0), append=False)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> bool | None:
        if not is_kernel_test(item):
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self._reports(item):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        # What the test before has left set up for this one, the next one may not need.
        item.session._setupstate.teardown_exact(nextitem)
        return True

    @pytest.hookimpl
    def pytest_sessionfinish(self) -> None:
        self._end_guest()

    def _reports(self, item: pytest.Item) -> list[pytest.TestReport]:
        try:
            guest = self._boot(item)
            guest.send(item.nodeid)
            reports = json.loads(Path(guest.receive(self._limits_s[item.nodeid])).read_text())
        except NoGuest as error:
            outcome = missing.outcome(str(error))
            return [verdict(item, outcome, str(error))]
        except GuestDied as error:
            self._end_guest()
            return [verdict(item, "failed", f"in the rig's kernel: {error}")]
        for data in reports:
            if isinstance(data["longrepr"], list):  # a skip's place and reason: JSON has no tuples
                data["longrepr"] = tuple(data["longrepr"])
        from_serializable = item.config.hook.pytest_report_from_serializable
        return [from_serializable(config=item.config, data=data) for data in reports]

    def _boot(self, item: pytest.Item) -> Guest:
        if self._guest is None and self._why_not is None:
            try:
                self._guest = self._start(item.config.rootpath)
            except RigMissing as error:
                self._why_not = str(error)
            except GuestDied as error:
                self._why_not = f"the rig's kernel does not boot: {error}"
        if self._guest is None:
            raise NoGuest(self._why_not)
        return self._guest

    def _start(self, folder: Path) -> Guest:
        guest = Guest(
            find(),
            [sys.executable, "-m", "pytest", "-p", __name__, *OPTIONS, *self._ids],
            cwd=folder,
            environment={"PYTHONPATH": str(ROOT), **HANDED_ON},
        )
        try:
            guest.receive(BOOT_S)
        except BaseException:
            guest.close()
            raise
        return guest

    def _end_guest(self) -> None:
        if self._guest is not None:
            self._guest.close()
            self._guest = None


def verdict(item: pytest.Item, outcome: Any, text: str) -> pytest.TestReport:
    first = text.partition("\n")[0]
    words: Any = (item.nodeid, 0, f"Skipped: {first}") if outcome == "skipped" else text
    return pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords={},
        outcome=outcome,
        longrepr=words,
        when="setup" if outcome == "skipped" else "call",
    )


# -- inside ---------------------------------------------------------------------------------------


class Inside:
    """Runs the tests that are asked for on the serial line."""

    def __init__(self) -> None:
        self._work = Path(os.environ["SBE_RIG_WORK"])
        self._line = os.open("/dev/ttyS0", os.O_RDWR | os.O_NOCTTY)
        tty.setraw(self._line)
        self._log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        self._reports: list[pytest.TestReport] = []
        self._config: pytest.Config | None = None

    @pytest.hookimpl
    def pytest_configure(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        with open(self._line, "r+b", buffering=0) as line:
            line.write(b"ready\n")
            rest = b""
            while chunk := line.read(4096):
                rest += chunk
                while b"\n" in rest:
                    name, rest = rest.split(b"\n", 1)
                    answer = self._run(items[name.decode()])
                    line.write(str(answer).encode() + b"\n")
        return True

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._reports.append(report)

    def _run(self, item: pytest.Item) -> Path:
        self._read_log()
        self._reports = []
        try:
            # Which test comes next was not known before: what it shares with this one stays.
            item.session._setupstate.teardown_exact(item)
            parent: Any = item.parent
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=parent)
        except Exception as error:
            text = f"what tests before this one had set up did not end well: {error!r}"
            self._reports.append(verdict(item, "failed", text))
        log = self._read_log()
        wrong = faults(log)
        for report in self._reports:
            if report.failed and log:
                last = "\n".join(log.splitlines()[-LINES_SHOWN:])
                report.sections.append(("the kernel's log during this test", last))
        if wrong and not any(report.failed for report in self._reports):
            calls = [report for report in self._reports if report.when == "call"]
            report = (calls or self._reports)[-1]
            report.outcome = "failed"
            report.longrepr = "the kernel complained during this test:\n" + log
        path = self._work / "reports.json"
        serialize = item.config.hook.pytest_report_to_serializable
        data = [serialize(config=item.config, report=report) for report in self._reports]
        path.write_text(json.dumps(data))
        return path

    def _read_log(self) -> str:
        lines: list[str] = []
        while True:
            try:
                record = os.read(self._log, 8192)
            except BlockingIOError:
                return "\n".join(lines)
            except BrokenPipeError:
                continue  # records were overwritten before they were read
            text = record.decode(errors="replace").split(";", 1)[-1]
            lines.append(text.split("\n", 1)[0])  # what follows names the device


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Inside() if INSIDE else Outside(), "sbe-kernel-rig")
