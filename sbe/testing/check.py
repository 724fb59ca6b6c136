"""Checks any remote: the conformance suite in a process of its own, and what came of it."""

from __future__ import annotations

import errno
import json
import os
import re
import select
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from sbe import extras
from sbe.errors import BadArgument, Error
from sbe.sdk.timeouts import seconds

__all__ = ["Finding", "Verdict", "check_remote", "examine"]

_SLACK_S: Final = 60.0  # to start Python and the remote, beside what a test may take
_SHOWN: Final = 300  # characters of a finding
_CODES: Final = (0, 1, 2)  # all passed, some failed, stopped by the plugin: it has told which


@dataclass(frozen=True)
class Finding:
    """A test that failed or was skipped, and why, in one line."""

    test: str
    words: str

    def __str__(self) -> str:
        return f"{self.test}: {self.words}"


@dataclass(frozen=True)
class Verdict:
    """What the suite found about a remote; as text it says PASS or FAIL first, then why."""

    remote: str
    passed: int
    failed: tuple[Finding, ...]
    skipped: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """No test failed, and some ran."""
        return self.passed > 0 and not self.failed

    @property
    def summary(self) -> str:
        """One line without the first word."""
        ran = self.passed + len(self.failed)
        return f"{self.remote}: {self.passed} of {ran} tests passed, {len(self.skipped)} skipped"

    @property
    def details(self) -> list[str]:
        """A line for each test that failed, and for each reason to skip some."""
        reasons = Counter(each.words for each in self.skipped)
        return [
            *(f"failed {each}" for each in self.failed),
            *(f"skipped {count}: {words}" for words, count in reasons.items()),
        ]

    def __str__(self) -> str:
        first = f"{'PASS' if self.ok else 'FAIL'} {self.summary}"
        return "\n".join([first, *(f"  {line}" for line in self.details)])


def check_remote(uri: str | None = None, *, timeout: float = 60.0) -> Verdict:
    """Runs the conformance suite against a remote; returns when all of it passed.

    uri: as `sbe.connect()` takes it. `timeout`: seconds that one test may take, and connecting ten
    of them at most. A test whose service or memory the remote has not is skipped, as the verdict
    tells. Takes seconds to some
    minutes; blocks, and may be called by any thread.

    Raises Error with the whole verdict if a test failed, LinkError when there is no remote,
    UnknownService when it has no service that the suite calls.
    """
    verdict = examine(uri, timeout=timeout)
    if not verdict.ok:
        raise Error(str(verdict), errno.EPROTO)
    return verdict


def examine(uri: str | None = None, *, timeout: float = 60.0) -> Verdict:
    """As `check_remote()`, and returns the verdict also if tests failed."""
    timeout = seconds(timeout)
    if not 0 < timeout < 1e6:
        raise BadArgument(f"timeout={timeout}: say how many seconds one test may take")
    try:
        import numpy  # noqa: F401
        import pytest  # noqa: F401
    except ImportError as error:
        why = extras.missing("checking a remote", error, "check")
        raise Error(why or str(error), errno.ENOPKG) from error
    from sbe.testing.conformance.survey import survey

    remote = survey(uri, timeout).name  # raises what there is to say before any test
    with tempfile.TemporaryFile() as output:
        found = _run(uri, timeout, output)
        passed = sum(each["outcome"] == "passed" for each in found)
        if not found:
            output.seek(0)
            said = output.read().decode(errors="replace").strip()
            raise Error(f"the conformance suite did not run: {said}", errno.EIO)
    failed, skipped = (
        tuple(
            Finding(_name(each["test"]), each["words"][:_SHOWN])
            for each in found
            if each["outcome"] == outcome
        )
        for outcome in ("failed", "skipped")
    )
    return Verdict(remote, passed, failed, skipped)


def _name(test: str) -> str:
    """Of a node id: the file's subject and the test, in words."""
    path, _, test = test.rpartition("::")
    subject = os.path.basename(path).removeprefix("test_").removesuffix(".py")
    name, bracket, parameters = test.removeprefix("test_").partition("[")
    return f"{subject}: {name.replace('_', ' ')}{bracket}{parameters}" if path else test


def _run(uri: str | None, timeout: float, output: Any) -> list[dict[str, str]]:
    """What each test came to. pytest sees no settings but these: not the user's, not a folder's."""
    reader, writer = os.pipe()
    command = [sys.executable, "-P", "-m", "pytest", "-p", "sbe.testing.plugin"]
    command += ["-p", "no:cacheprovider", "-q", "-c", os.devnull]
    command += ["--rootdir", os.path.dirname(__file__)]
    command += [f"--sbe-timeout={timeout}", f"--sbe-report={writer}"]
    command += [f"--sbe-uri={uri}"] if uri is not None else []
    command += ["--pyargs", "sbe.testing.conformance"]
    # With CI set pytest shows values in full, which takes a minute for those of a megabyte.
    theirs = re.compile("PYTEST_|CI$|BUILD_NUMBER$")
    usual = {key: value for key, value in os.environ.items() if not theirs.match(key)}
    environment = {**usual, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    with open(reader, "rb", buffering=0) as lines:
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=[writer],
            )
        finally:
            os.close(writer)
        try:
            told, ended = _read(lines.fileno(), 3 * timeout + _SLACK_S)
            code = child.wait(_SLACK_S) if ended else None
        except subprocess.TimeoutExpired:
            code = None
        finally:
            child.kill()
            child.wait()
    found = [json.loads(line) for line in told.splitlines()]
    if code is None:
        found.append(_failure("it had no end and was killed"))
    elif code not in _CODES and (found or code < 0):  # else it has printed why it did not begin
        found.append(_failure(f"pytest ended with {code}"))
    return found


def _failure(words: str) -> dict[str, str]:
    return {"test": "the suite", "outcome": "failed", "words": words}


def _read(fd: int, patience: float) -> tuple[bytes, bool]:
    """All that is told, and whether its end came: each test says something within its time."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    told = b""
    while poll.poll(patience * 1000):
        if not (chunk := os.read(fd, 65536)):
            return told, True
        told += chunk
    return told, False
