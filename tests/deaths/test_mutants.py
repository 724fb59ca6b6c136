"""What makes a death harmless is left out: a run fails without it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.caches.build import ROOT, compile_all, object_of
from tests.deaths import build


class Mutant(NamedTuple):
    """`old` in the file becomes `new`."""

    name: str
    file: str
    old: str
    new: str


PEER, SESSION = "firmware/core/session_peer.c", "firmware/core/session.c"
ENGINE, KEPT = "firmware/core/engine.c", "firmware/core/kept.c"
MUTANTS = [
    Mutant(
        "areas of a dead epoch",
        PEER,
        "        kill_areas(session, context->areas);\n        *",
        "*",
    ),
    Mutant("channels of a dead epoch", PEER, "    close_channels(session, SBE_CONTEXT_ALL);\n", ""),
    Mutant("pins of an area", PEER, "!area->dying || area->pins != 0", "!area->dying"),
    Mutant("requests that were kept", ENGINE, "    sbe_kept_drop(engine, entry);\n", ""),
    Mutant(
        "requests in pieces",
        ENGINE,
        "        engine->config->pieces->drop(engine, entry);\n",
        "        entry->paused = false;\n",
    ),
    Mutant(
        "calls of the remote",
        ENGINE,
        "    sbe_channel_abort(&entry->channel, fail_call, NULL);\n",
        "    (void)fail_call;\n",
    ),
    Mutant(
        "control requests", SESSION, "    fail_pending(session);\n", "    (void)fail_pending;\n"
    ),
    Mutant("a new epoch", SESSION, "    if (!again && session->peer_epoch != 0)\n", "    if (0)\n"),
    Mutant("an answer to a former HELLO", SESSION, " || reply->peer_epoch != session->epoch", ""),
    Mutant(
        "a HELLO for who came later",
        SESSION,
        "    if (status == SBE_OK && hello->peer_epoch != session->epoch)\n",
        "    if (0)\n",
    ),
    Mutant(
        "pins of what was kept",
        KEPT,
        "        sbe_engine_pin(engine, kept->buffers, kept->buffer_count, false);\n    }\n}",
        "    }\n}",
    ),
    Mutant(
        "words of a control ring",
        "firmware/carveout/bootstrap.c",
        "        reset_words(bootstrap);\n        bootstrap->peer_generation = peer;",
        "        bootstrap->peer_generation = peer;",
    ),
    Mutant(
        "another generation",
        "firmware/carveout/bootstrap.c",
        "    uint32_t generation = (former + 1) ^ seed << 8;\n"
        "    while (generation == 0 || generation == former || generation == seen)\n",
        "    uint32_t generation = former | (seed & seen & 0);\n    while (generation == 0)\n",
    ),
    Mutant(
        "a job whose requester is gone",
        "firmware/services/mulaw.c",
        "    if (!job->used)\n        return false; /* cancelled */\n",
        "",
    ),
]
RUNS = [("singles", "0", "1"), ("pairs", "31", "3")]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_it_is_missed(mutant: Mutant, tmp_path: Path) -> None:
    base = build.programs()
    text = (ROOT / mutant.file).read_text()
    assert text.count(mutant.old) == 1
    changed = tmp_path / mutant.file
    changed.parent.mkdir(parents=True)
    changed.write_text(text.replace(mutant.old, mutant.new))
    for header in (ROOT / mutant.file).parent.glob("*.h"):
        shutil.copy(header, changed.parent)
    compile_all([changed], tmp_path, flags=[each for each in build.FLAGS if each != "-Werror"])
    ours = object_of(changed, tmp_path)
    for end in build.ENDS:
        objects = [object_of(path, base) for path in build.files_of(end)]
        build.link_end(
            [ours if each.name == ours.name else each for each in objects],
            tmp_path / f"{end}.so",
        )
    runs = ((binding, seed, *run) for binding in build.BINDINGS for seed in "12" for run in RUNS)
    assert any(build.world(base, tmp_path, *run).returncode != 0 for run in runs)
