# SPDX-License-Identifier: Apache-2.0
"""What is preloaded into the rig's kernel, so that it boots on any x86-64 CPU: uml_ptrace.c."""

import base64
import ctypes
import platform
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from tests.rigs.kernel.guest import HERE

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="x86-64's state")

UML_BYTES = 2696  # HOST_FP_SIZE of Linux 6.1 and 6.12
BV = slice(512, 520)  # XSTATE_BV
AMX = 1 << 17 | 1 << 18

# Read with PTRACE_GETREGSET on a CPU with AMX: a tile of 0 1 2 ... 7 0 1 ..., 0x5a in zmm20.
RECORDED = zlib.decompress(
    base64.b64decode(
        "eNrt1U0LAUEcx/G/p1VOe3TjFdhXoKwoSpSV5DJ2pSg5cHJaL8XL8FK8Al7Gosg20bYhxfczh1/TPB3m"
        "P42fkoc2BZEgkK8bavbbnZ3zRW7ZbfbtXl2Ums+8sZq4l354fXhsOV+rkbZ/Xn7LUYxY8w8x50fdj+Cv"
        "FM/tImkm3lI/1BPisCJ8+vyStZyMxWnUW62y5c0WlueuptJ0lGO3a9XO4NX6530Az+m/TkVrOvPqvkEy"
        "lc4YWZIk/zABAAAAAAAAAAAA/IwTk91k6g=="
    )
)

FORKED = """
import ctypes, errno, os, signal, sys
GETREGSET, SETREGSET, XSTATE = 0x4204, 0x4205, 0x202
class iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
def ptrace(request, pid, address, data):
    data = ctypes.byref(data) if data else None
    done = libc.ptrace(request, pid, ctypes.c_void_p(address), data)
    return ctypes.get_errno() if done < 0 else 0
child = os.fork()
if child == 0:
    ptrace(0, 0, 0, None)  # TRACEME
    os.kill(os.getpid(), signal.SIGSTOP)
    os._exit(7)
os.waitpid(child, 0)
room = ctypes.create_string_buffer(65536)
state = iovec(ctypes.addressof(room), len(room))
assert ptrace(GETREGSET, child, XSTATE, state) == 0
whole = state.size
short = iovec(state.base, whole - 8)
print(errno.errorcode.get(ptrace(SETREGSET, child, XSTATE, short), "fine"))
again = iovec(state.base, len(room))
assert ptrace(GETREGSET, child, XSTATE, again) == 0 and again.size == whole
assert ptrace(7, child, 0, None) == 0  # CONT, which goes through as it is
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.fixture(scope="module")
def preload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("preload") / "uml_ptrace.so"
    source = HERE / "uml_ptrace.c"
    subprocess.run(["cc", "-std=c11", "-shared", "-fPIC", "-o", path, source], check=True)
    return path


def overlay(preload: Path, whole: bytes, part: bytes) -> bytes:
    result = ctypes.create_string_buffer(whole, len(whole))
    call = ctypes.CDLL(str(preload)).uml_overlay
    call.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
    call.restype = None
    call(result, len(whole), part, len(part))
    return result.raw


def test_what_uml_keeps_is_laid_over_a_larger_state(preload: Path) -> None:
    part = bytearray(RECORDED[:UML_BYTES])
    part[0:2] = b"\x7f\x02"  # the x87 control word
    part[BV] = (0xFF | AMX).to_bytes(8, "little")
    merged = overlay(preload, RECORDED, bytes(part))
    assert len(merged) == len(RECORDED) == 11008
    assert merged[:UML_BYTES] == part
    assert merged[UML_BYTES:] == RECORDED[UML_BYTES:]


def test_components_that_uml_does_not_know_stay_as_they_are(preload: Path) -> None:
    """Told to be in use they would be loaded from bytes that UML never saw, and the reverse."""
    recorded = int.from_bytes(RECORDED[BV], "little")
    assert recorded & AMX == AMX
    for theirs in (recorded, recorded & ~AMX):
        whole = bytearray(RECORDED)
        whole[BV] = theirs.to_bytes(8, "little")
        for ours in (0x3, 0x3 | AMX):
            part = bytearray(RECORDED[:UML_BYTES])
            part[BV] = ours.to_bytes(8, "little")
            merged = overlay(preload, bytes(whole), bytes(part))
            assert int.from_bytes(merged[BV], "little") == 0x3 | theirs & AMX


@pytest.mark.parametrize("size", [576, 832, UML_BYTES])
def test_state_of_a_smaller_or_equal_cpu_is_taken_as_it_is(preload: Path, size: int) -> None:
    part = RECORDED[:UML_BYTES]
    assert overlay(preload, bytes(size), part) == part[:size]


def test_host_takes_a_state_that_is_too_small(preload: Path) -> None:
    """On any CPU: eight bytes fewer than it has stand for UML's 2,696."""

    def traced(**environment: str) -> list[str]:
        command = [sys.executable, "-c", FORKED]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    if traced() != ["EFAULT", "7"]:
        pytest.skip("this host takes such a state by itself")
    assert traced(LD_PRELOAD=str(preload)) == ["fine", "7"]
