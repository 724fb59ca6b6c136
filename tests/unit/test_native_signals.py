"""Signals are held while something is made that nobody has yet, and come where somebody waits."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from sbe._native import SignalsHeld, SignalsLet
from tests.children import in_child


class Came(Exception):
    """A handler raised."""


@pytest.fixture
def came() -> Iterator[list[int]]:
    """SIGUSR1 raises; SIGUSR2 is written down."""
    seen: list[int] = []

    def refuse(number: int, frame: object) -> None:
        seen.append(number)
        raise Came

    def note(number: int, frame: object) -> None:
        seen.append(number)

    former = signal.signal(signal.SIGUSR1, refuse), signal.signal(signal.SIGUSR2, note)
    yield seen
    signal.signal(signal.SIGUSR1, former[0])
    signal.signal(signal.SIGUSR2, former[1])


def test_a_handler_runs_after_the_block(came: list[int]):
    done = False
    with pytest.raises(Came), SignalsHeld():  # noqa: PT012 - where it is raised is what counts
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR2)
        assert came == []
        done = True
    assert done
    assert set(came) == {signal.SIGUSR1, signal.SIGUSR2}


def test_a_handler_runs_where_it_is_let(came: list[int]):
    with SignalsHeld():
        signal.raise_signal(signal.SIGUSR2)
        assert came == []
        with SignalsLet():
            assert came == [signal.SIGUSR2]
            signal.raise_signal(signal.SIGUSR2)
            assert len(came) == 2
        signal.raise_signal(signal.SIGUSR2)
        assert len(came) == 2
    assert len(came) == 3


def test_what_a_handler_raises_where_it_is_let(came: list[int]):
    with SignalsHeld():
        signal.raise_signal(signal.SIGUSR1)
        with pytest.raises(Came), SignalsLet():
            raise AssertionError("the block is not entered")
        signal.raise_signal(signal.SIGUSR2)  # held as before
        assert came == [signal.SIGUSR1]
        with pytest.raises(Came), SignalsLet():
            signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR2)
        assert came == [signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1]
    assert came[-1] == signal.SIGUSR2


def test_blocks_nest(came: list[int]):
    with SignalsHeld():
        with SignalsHeld():
            signal.raise_signal(signal.SIGUSR2)
            with SignalsLet(), SignalsHeld():
                assert len(came) == 1
                signal.raise_signal(signal.SIGUSR2)
                assert len(came) == 1
            assert len(came) == 2
            signal.raise_signal(signal.SIGUSR2)
        assert len(came) == 2
    assert len(came) == 3
    with SignalsLet():  # alone it does nothing
        signal.raise_signal(signal.SIGUSR2)
        assert len(came) == 4


def test_an_error_in_the_block_comes_before_the_handler(came: list[int]):
    with pytest.raises((ZeroDivisionError, Came)), SignalsHeld():  # noqa: PT012
        signal.raise_signal(signal.SIGUSR2)
        raise ZeroDivisionError
    assert came == [signal.SIGUSR2]


def test_handlers_and_their_flags_are_as_before(came: list[int]):
    before = [signal.getsignal(number) for number in sorted(signal.valid_signals())]
    signal.siginterrupt(signal.SIGUSR2, False)
    with open("/proc/self/status") as status:
        caught = next(line for line in status if line.startswith("SigCgt"))
    with SignalsHeld(), open("/proc/self/status") as status:
        assert next(line for line in status if line.startswith("SigCgt")) == caught
    with open("/proc/self/status") as status:
        assert next(line for line in status if line.startswith("SigCgt")) == caught
    assert [signal.getsignal(number) for number in sorted(signal.valid_signals())] == before
    signal.raise_signal(signal.SIGUSR2)
    assert came == [signal.SIGUSR2]


def test_a_signal_that_another_thread_gets(came: list[int]):
    """The kernel gives a signal of the process to any thread; Python runs the handler in one."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        with SignalsHeld():

            def take() -> None:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
                signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)

            thread = threading.Thread(target=take)
            thread.start()
            thread.join()
            assert came == []
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
    assert came == [signal.SIGUSR2]


def test_in_another_thread_it_does_nothing(came: list[int]):
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with SignalsHeld(), SignalsLet():
            entered.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait()
    signal.raise_signal(signal.SIGUSR2)
    assert came == [signal.SIGUSR2]
    leave.set()
    thread.join()


def test_what_ends_the_process_still_does(tmp_path: object):
    """A signal that Python has no function for is not held."""
    program = (
        "import signal, sbe._native as n\n"
        "with n.SignalsHeld():\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    print('alive')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, b"")


def test_a_child_of_fork_has_them_too(came: list[int]):
    with SignalsHeld():
        child = os.fork()
        if child == 0:
            signal.raise_signal(signal.SIGUSR2)
    if child == 0:
        os._exit(len(came))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert came == []


def test_a_child_that_another_thread_forks_hears_signals(came: list[int]):
    """It has no part in a block of its parent's main thread."""

    def hear() -> None:
        with contextlib.suppress(Came):
            signal.raise_signal(signal.SIGUSR1)
            signal.pause()
        with SignalsHeld():
            signal.raise_signal(signal.SIGUSR2)
        assert came == [signal.SIGUSR1, signal.SIGUSR2]

    status: list[int] = []
    thread = threading.Thread(target=lambda: status.append(in_child(hear)))
    with SignalsHeld():
        thread.start()
        thread.join(60)
    assert status == [0]
