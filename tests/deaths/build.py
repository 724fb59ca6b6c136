"""Builds the ends and the world of the deaths in one process: once for each source."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.caches import build as caches
from tests.caches.build import ROOT, compile_all, compiler, object_of, once, run, sources
from tests.proof.tree import fixed_addresses

HERE = Path(__file__).parent
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
SMALL = (  # tables such that what leaks is missed by the next who needs it
    "SBE_SMALL",
    "SBE_POOL=2u",
    "SBE_POOL_SHARE=2u",
    "SBE_RELAY_ROOM=256u",
    "CARVEOUT_AREAS=8u",
    "CARVEOUT_CONTEXTS=2u",
    "CARVEOUT_CHANNELS=2u",
    "CARVEOUT_SLOTS=16u",
    "CARVEOUT_SLOT_SIZE=192u",
    "CARVEOUT_LINE=64u",
)
FLAGS = (
    *("-O1", "-g", "-fPIC", "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror"),
    *("-Wconversion", "-Wsign-conversion", "-Wshadow", "-include", str(HERE / "step.h")),
    *(f"-D{name}" for name in SMALL),
    *SANITIZE,
)
OF_CORE = ("firmware/core", "firmware/carveout")
OF_REMOTE = (
    "firmware/asg",
    "firmware/ninep",
    "firmware/pieces",
    "firmware/power",
    "firmware/services",
    "firmware/streams",
)
ENDS = ("host", "remote")
BINDINGS = ("mail", "resident", "carved")
LIMIT_S = 300.0  # turns a hang into a failure; it takes some seconds


def files_of(end: str) -> list[Path]:
    """The sources of an end."""
    if end == "host":
        return [HERE / "host_end.c", HERE / "host_script.c", *sources(*OF_CORE)]
    port = ROOT / "firmware/ports/carveout/carveout.c"
    return [HERE / "remote_end.c", port, *sources(*OF_CORE, *OF_REMOTE)]


def link_end(objects: Iterable[Path], to: Path) -> None:
    """An end. All that it may write is in one piece, which is what its death puts back."""
    run(compiler(), "-shared", "-Wl,-z,norelro,-Bsymbolic", *SANITIZE, *objects, "-o", to)


def world(folder: Path, ends: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the world of the folder `programs()` with the ends in another, or the same."""
    command: list[str | Path] = [*fixed_addresses(), folder / "world"]
    command += [ends / f"{end}.so" for end in ENDS]
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


def programs() -> Path:
    """The folder with `world`, the ends and their objects."""

    def make(folder: Path) -> None:
        compile_all({HERE / "world.c", *files_of("host"), *files_of("remote")}, folder, flags=FLAGS)
        for end in ENDS:
            link_end([object_of(file, folder) for file in files_of(end)], folder / f"{end}.so")
        main = object_of(HERE / "world.c", folder)
        run(compiler(), "-rdynamic", *SANITIZE, main, "-o", folder / "world", "-ldl")

    ours = [HERE / "world.c", *HERE.glob("*.h"), Path(__file__)]
    return once("deaths", [*ours, *files_of("host"), *files_of("remote")], make)


# -- processes that can be killed at their points -------------------------------------------------

SHIM = ROOT / "tests/faults/failing_calls.c"
KILLED = (*caches.FLAGS, "-include", str(HERE / "step.h"))


def killable() -> Path:
    """The folder with `shim.so`, `sbe-remote`, which is linked to it, and a package `sbe`."""
    remote = sources(*caches.OF_REMOTE, *caches.OF_PORT)
    extension = caches.extension_sources()

    def make(folder: Path) -> None:
        shim = folder / "shim.so"
        flags = ("-shared", "-fPIC", "-Wall", "-Werror", "-Wl,-soname,shim.so")
        run(compiler(), *flags, SHIM, "-o", shim, "-ldl")
        compile_all({*remote, *extension}, folder, flags=KILLED)
        objects = [object_of(file, folder) for file in remote]
        own = ("-Wl,-rpath,$ORIGIN", "-Wl,--wrap=malloc,--wrap=calloc")
        run(compiler(), *objects, *own, shim, "-o", folder / "sbe-remote")
        caches.link_extension([object_of(file, folder) for file in extension], folder / "package")

    return once("killable", [*remote, *extension, SHIM, HERE / "step.h", Path(__file__)], make)
