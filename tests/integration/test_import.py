"""`import sbe` is light, documented and typed; what its users see stays what is written down."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import sbe

ROOT = Path(__file__).parents[2]
HEAVY = ["numpy", "asyncio", "pydantic", "click", "rich", "scipy", "PIL", "logging", "subprocess"]
HEAVY += ["importlib.metadata", "sbe.extras", "sbe.testing", "pytest"]

PROGRAM = """
from __future__ import annotations

import asyncio
import struct
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import sbe


def work(link: sbe.Connection) -> bytes:
    with link.allocate(8 << 20) as area:
        assert_type(area, sbe.Area)
        area[:4] = b"data"
        reply = link.call("crc32", sbe.In(area[:4]), timeout=1.0)
        assert_type(reply, sbe.Reply)
        assert_type(reply.payload, bytes)
        assert_type(reply.written, tuple[int, ...])
        assert_type(reply.cost.copied_bytes, int)
        link.call("copy", sbe.In(b"from"), sbe.Out(memoryview(area)[8:12]))
        link.call("echo", sbe.InOut(bytearray(4)), sbe.Shared(area), payload=struct.pack("<I", 1))
        future = link.submit("echo", payload=b"later", wait=True)
        assert_type(future.done(), bool)
        assert_type(future.result(timeout=1.0), sbe.Reply)
        assert_type(future.exception(), BaseException | None)
        result = link.batch("crc32", area.descriptors(sbe.In, [0, 1], 1), reply_size=4)
        assert_type(result, sbe.BatchResult)
        result.check()
        assert_type(area.array(np.float32, (2, 3)), NDArray[np.float32])
        assert_type(area.array("u2", offset_bytes=64), NDArray[Any])
    service = link.find("echo", 1)
    assert_type((service.id, service.name, service.version), tuple[int, str, int])
    link.serve("mine", serve)
    link.send("echo")
    link.sync()
    return reply.payload


def serve(payload: bytes, *buffers: memoryview) -> bytes | None:
    return payload or None


async def awaited(link: sbe.Connection) -> sbe.Reply:
    replies = await asyncio.gather(link.acall("echo"), link.acall("echo", payload=b"x"))
    return replies[0]


def main() -> None:
    try:
        with sbe.connect("loopback:", timeout=5.0) as link:
            work(link)
            asyncio.run(awaited(link))
    except (sbe.RemoteRestarted, sbe.Timeout) as error:
        print(error, error.code)
"""

WRONG = """
import sbe

link = sbe.connect(5)
link.call("echo", b"no buffer")
reply: int = link.call("echo")
link.call("echo", payload_=b"")
sbe.In()
"""


def run(*arguments: str, **how: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=120
    )


def test_import_takes_nothing_heavy() -> None:
    done = run("-c", f"import sys, sbe; print([m for m in {HEAVY} if m in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


def test_a_remote_for_tests_takes_no_pytest() -> None:
    code = "print([m for m in ('numpy', 'pytest') if m in sys.modules])"
    done = run("-c", f"import sys, sbe.testing; {code}")
    assert done.stdout.strip() == "[]", done.stderr


def test_numpy_is_needed_only_where_it_is_used() -> None:
    """The interpreter without site-packages of others: calls work, arrays are what fails."""
    code = (
        "import sys; sys.modules['numpy'] = None; import sbe\n"
        "with sbe.connect('loopback:') as link:\n"
        "    area = link.allocate(4096); area[:3] = b'abc'\n"
        "    print(link.call('crc32', sbe.In(area[:3])).payload.hex())\n"
    )
    done = run("-c", code)
    assert done.stdout.strip() == "c2412435", done.stderr


@pytest.mark.parametrize(
    "code",
    [
        "area.array('u1')",
        "area.descriptors(sbe.In, 0, 1)",
        "link.batch('crc32', [])",
        "sbe.buffer_dtype()",
        "sbe.BatchResult([], [], []).check()",
    ],
)
def test_who_needs_numpy_says_so(code: str) -> None:
    program = (
        "import sys; sys.modules['numpy'] = None; import sbe\n"
        "with sbe.connect('loopback:') as link, link.allocate(4096) as area:\n"
        f"    try: {code}\n"
        "    except sbe.OutOfResources as error: print(error)\n"
    )
    done = run("-c", program)
    assert "needs numpy" in done.stdout, done.stderr
    assert "pip install 'structured-buffer-exchange[numpy]'" in done.stdout


def test_names_are_those_of_all_and_documented() -> None:
    assert sorted(sbe.__all__) == sbe.__all__
    assert len(set(sbe.__all__)) == len(sbe.__all__)
    for name in sbe.__all__:
        if name != "__version__":
            assert (getattr(sbe, name).__doc__ or "").strip(), name
    public = {name for name in vars(sbe) if not name.startswith("_")}
    modules = {name for name in public if isinstance(getattr(sbe, name), type(sys))}
    assert public - modules - {"annotations"} <= set(sbe.__all__)


@pytest.mark.parametrize("name", ["Connection", "Area"])
def test_methods_are_documented(name: str) -> None:
    for attribute in dir(getattr(sbe, name)):  # those of its parts, too
        value = getattr(getattr(sbe, name), attribute)
        if not attribute.startswith("_") and (callable(value) or isinstance(value, property)):
            assert (value.__doc__ or "").strip(), f"{name}.{attribute}"


def test_errors_are_one_tree_and_the_usual_ones() -> None:
    errors = [
        getattr(sbe, name)
        for name in sbe.__all__
        if isinstance(getattr(sbe, name), type) and issubclass(getattr(sbe, name), BaseException)
    ]
    assert all(issubclass(error, sbe.Error) for error in errors)
    assert issubclass(sbe.BadArgument, ValueError)
    assert issubclass(sbe.PermissionDenied, PermissionError)
    assert issubclass(sbe.Timeout, TimeoutError)
    assert issubclass(sbe.WouldBlock, BlockingIOError)
    assert issubclass(sbe.LinkError, ConnectionError)
    assert {error("words").code > 0 for error in errors} == {True}


def test_a_typed_program(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    flags = ["--strict", "--no-error-summary", "--cache-dir", str(tmp_path / "cache")]
    done = run("-m", "mypy", *flags, str(program))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_a_wrongly_typed_program(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(WRONG)
    done = run("-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(program))
    lines = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line}
    assert lines == {4, 5, 6, 7, 8}, done.stdout
