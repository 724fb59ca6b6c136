"""Plugins that all tests share, and signals as a program in a terminal has them."""

import gc
import signal

import pytest

pytest_plugins = ["tests.rigs.missing", "tests.rigs.kernel.plugin"]

pytest.register_assert_rewrite("sbe.testing.conformance")  # which tests/conformance takes

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background by a script
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # by nohup; what tests start inherits it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_finish() -> None:
    """Many tests have the collector run, again and again until something is gone: ten thousand
    tests with their parameters, which live to the end, are not looked at each time."""
    gc.collect()
    gc.freeze()
