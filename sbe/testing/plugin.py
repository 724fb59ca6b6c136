"""pytest for who makes a remote: `connect` and `link` lead to the one that --sbe-uri names.

    pytest -p sbe.testing.plugin --sbe-uri=qemu:mps2-an521 --pyargs sbe.testing.conformance

runs the conformance suite; tests of one's own may take the fixtures too. It is loaded only where it
is named: whoever has this package installed pays nothing for it in other test runs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
from collections.abc import Generator, Iterator
from dataclasses import replace
from types import FrameType

import pytest

import sbe
from sbe.testing.conformance.parts import Connector, lacks
from sbe.testing.conformance.survey import survey

__all__ = ["connect", "link"]

_HANGS = 3  # so many tests without an end, and the others are not begun


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of this plugin."""
    group = parser.getgroup("sbe")
    group.addoption(
        "--sbe-uri", metavar="URI", help="The remote to test, as sbe.connect() takes it."
    )
    group.addoption(
        "--sbe-timeout",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="What one test may take. Default: 60.",
    )
    group.addoption("--sbe-report", type=int, help=argparse.SUPPRESS)  # a pipe of check_remote()


def pytest_configure(config: pytest.Config) -> None:
    """Every run has its own state."""
    config.addinivalue_line("markers", "needs: services and memory that a test wants of a remote")
    config.pluginmanager.register(_Run(config), "sbe-run")


class _Run:
    """One run of pytest: what the remote is, and how long each test may take."""

    def __init__(self, config: pytest.Config) -> None:
        self._uri: str | None = config.getoption("--sbe-uri")
        self._timeout: float = config.getoption("--sbe-timeout")
        self._report: int | None = config.getoption("--sbe-report")
        self._hangs = 0
        self.remote: Connector | None = None

    @pytest.hookimpl
    def pytest_sessionstart(self) -> None:
        try:
            self.remote = survey(self._uri, self._timeout)
        except sbe.Error as error:
            raise pytest.UsageError(str(error)) from error

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, None, None]:
        return (yield from self._limited(item))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, None, None]:
        return (yield from self._limited(item))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, None, None]:
        return (yield from self._limited(item))

    def _limited(self, item: pytest.Item) -> Generator[None, None, None]:
        """A remote that does not answer is a failure: the alarm ends what waits for it."""
        if threading.current_thread() is not threading.main_thread():
            return (yield)

        def late(number: int, frame: FrameType | None) -> None:
            self._hangs += 1
            if self._hangs >= _HANGS:
                item.session.shouldstop = f"{_HANGS} tests had no end, the others were not begun"
            pytest.fail(f"no end after {self._timeout:g} s")

        usual = signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, self._timeout)
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, usual)

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            self._tell(report.nodeid, report.outcome, _words(report))

    @pytest.hookimpl
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._tell(report.nodeid, "failed", report.longreprtext)

    @pytest.hookimpl
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if session.shouldstop:
            self._tell("the suite", "failed", str(session.shouldstop))

    def _tell(self, test: str, outcome: str, words: str) -> None:
        if self._report is not None:
            line = json.dumps({"test": test, "outcome": outcome, "words": words})
            os.write(self._report, line.encode() + b"\n")


def _words(report: pytest.TestReport) -> str:
    """Why a test was skipped or failed, in one line."""
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(crash.message) if crash is not None else report.longreprtext
    return (text.strip().splitlines() or [""])[0]


@pytest.fixture
def connect(request: pytest.FixtureRequest) -> Iterator[Connector]:
    """Opens links to the remote; they are closed after the test."""
    run = request.config.pluginmanager.get_plugin("sbe-run")
    assert isinstance(run, _Run)
    assert run.remote is not None
    if reason := lacks(request.node.iter_markers("needs"), run.remote):
        pytest.skip(reason)
    connector = replace(run.remote, links=[])
    yield connector
    connector.close()


@pytest.fixture
def link(connect: Connector) -> sbe.Connection:
    """One link to the remote."""
    return connect()
