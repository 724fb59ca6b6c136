"""What a user reads where no remote announces itself. The kernel's part is made up: sysfs files."""

from __future__ import annotations

from pathlib import Path

import pytest

import sbe
from sbe.kernel import remoteproc, rpmsg
from sbe.remotes.rpmsg import CONTROL, DOORBELL, RpmsgRemote


@pytest.fixture
def m4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One remote processor and no device on the rpmsg bus."""
    folder = tmp_path / "remoteproc0"
    folder.mkdir()
    (folder / "name").write_text("m4\n")
    monkeypatch.setattr(remoteproc, "CLASS", tmp_path)
    monkeypatch.setattr(rpmsg, "services", lambda *_, **__: [])
    return folder


def test_no_remote_processor_announces(m4: Path):
    with pytest.raises(sbe.LinkError) as raised:
        sbe.connect("rpmsg:")
    assert str(raised.value) == (
        "no remote processor announces 'sbe-control' on rpmsg: `sbe firmware list` shows which "
        "there are and how they are, `sbe firmware start NAME` starts one"
    )


@pytest.mark.parametrize(
    ("state", "hint"),
    [
        ("offline", "`sbe firmware start m4` starts it"),
        ("crashed", "`sbe firmware start m4` starts it"),
        ("running", "its firmware is another one, or waits: see `sbe firmware log m4`"),
        ("attached", "its firmware is another one, or waits: see `sbe firmware log m4`"),
    ],
)
@pytest.mark.parametrize("name", ["m4", "remoteproc0"])
def test_remote_processor_does_not_announce(name: str, state: str, hint: str, m4: Path):
    (m4 / "state").write_text(f"{state}\n")
    with pytest.raises(sbe.LinkError) as raised:
        sbe.connect(f"rpmsg:{name}")
    assert str(raised.value) == (
        f"remote processor {name}, which is {state}, does not announce 'sbe-control' on rpmsg: "
        f"{hint}"
    )


def test_a_core_that_was_started_again_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs before it announces itself, one channel after the other."""
    announced: list[str] = []
    looks = []

    class Processor:
        entry = "remoteproc7"

        def restart(self) -> None:
            announced.clear()

    def services(name: str | None = None, remote: str | None = None) -> list[str]:
        assert remote == Processor.entry
        looks.append(name)
        if len(looks) in (3, 7):
            announced.append(CONTROL if len(looks) == 3 else DOORBELL)
        return [each for each in announced if each == name]

    monkeypatch.setattr(remoteproc, "find", lambda name: Processor())
    monkeypatch.setattr(rpmsg, "services", services)
    RpmsgRemote("m33").restart()
    assert announced == [CONTROL, DOORBELL]
