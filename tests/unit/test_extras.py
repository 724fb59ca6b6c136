"""What is missing or in the way is named; nothing proposes the other project that is called sbe."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import sbe
from sbe import _native, cli, daemon, errors, extras
from sbe.cli import app
from sbe.kernel.uevents import Uevents
from sbe.transports.doorbell import open_doorbell
from tests.conformance.ends import wait_until_ready

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOREIGN = "Metadata-Version: 2.1\nName: sbe\nVersion: 0.4.3\n"


def test_the_name_is_the_projects_and_so_are_the_extras():
    assert PYPROJECT["project"]["name"] == extras.DISTRIBUTION
    assert not sys.stdlib_module_names & {"click", "PIL", "serial"}


# A package that is missing


def run_uevents() -> None:
    Uevents("rpmsg")


@pytest.mark.parametrize(
    ("module", "act", "message"),
    [
        ("click", lambda: cli.main(["ping"]), "the command line needs click: {cli}"),
        ("numpy", lambda: app.run(["bench"]), "sbe bench needs numpy: {cli}"),
        ("numpy", lambda: app.run(["demo"]), "sbe demo needs numpy: {demo}"),
        ("numpy", lambda: app.run(["check"]), "checking a remote needs numpy: {check}"),
        ("PIL", lambda: app.run(["demo"]), "sbe demo needs pillow (no module PIL): {demo}"),
        ("pydantic", lambda: daemon.main([]), "sbe-daemon needs pydantic: {daemon}"),
        ("asyncvarlink", lambda: daemon.main([]), "sbe-daemon needs asyncvarlink: {daemon}"),
        ("pyudev", run_uevents, "telling of devices needs pyudev: {daemon}"),
        (
            "serial",
            lambda: open_doorbell("serial:/dev/null"),
            "a serial doorbell needs pyserial (no module serial): {serial}",
        ),
    ],
)
def test_a_missing_package_is_named_with_what_brings_it(
    module: str,
    act: object,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.startswith(("sbe.cli.", "sbe.daemon."))]:
        if module in ("click", "pydantic", "asyncvarlink"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    assert callable(act)
    try:
        assert act() == 1
        said = capsys.readouterr().err.strip()
    except errors.LinkError as error:
        said = str(error)
    listed = PYPROJECT["project"]["optional-dependencies"]
    commands = {extra: f"pip install 'structured-buffer-exchange[{extra}]'" for extra in listed}
    assert said.removeprefix("sbe: error: ") == message.format(**commands)


def test_a_module_of_ours_or_of_pythons_own_is_no_package():
    for name in ("sbe.cli.nonsense", "sbe", "_ctypes", "ssl", None):
        assert extras.missing("it", ModuleNotFoundError("no", name=name), "cli") is None


def test_a_package_that_is_there_and_broken_says_why():
    error = ImportError("libz.so.9: cannot open shared object file", name="numpy")
    said = extras.missing("it", error, "cli")
    assert said == (
        "it needs numpy (libz.so.9: cannot open shared object file): "
        "pip install 'structured-buffer-exchange[cli]'"
    )


# The other project, with the same import name


class Site:
    """A folder of installed packages: ours, as its wheel would be, and what others add."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ignored = shutil.ignore_patterns("native", "__pycache__")
        self.package = shutil.copytree(ROOT / "sbe", folder / "sbe", ignore=ignored)
        built = Path(_native.__file__)
        shutil.copy(built, self.package)
        shutil.copy(built.with_name("sbe-remote"), self.package)
        self.add("structured_buffer_exchange-9", FOREIGN.replace("sbe", extras.DISTRIBUTION))

    def add(self, name: str, metadata: str) -> None:
        info = self.folder / f"{name}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(metadata)

    def install_foreign(self) -> None:
        self.add("sbe-0.4.3", FOREIGN)

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-S", "-P", *words]

    @property
    def environment(self) -> dict[str, str]:
        """-S and this: the editable install of the checkout is not looked at."""
        path = os.pathsep.join([str(self.folder), sysconfig.get_path("purelib")])
        return {**os.environ, "PYTHONPATH": path}

    def run(self, *words: str) -> tuple[int, str, str]:
        done = subprocess.run(
            self.command(*words),
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=self.folder,
            timeout=60,
        )
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


REPAIR = "pip install --force-reinstall --no-deps structured-buffer-exchange"
KEEP_ONE = f"Keep them in separate environments, or keep this one: pip uninstall sbe, then {REPAIR}"
VERSION = f"sbe {sbe.__version__}\n"


def test_alone_there_is_nothing_to_say(site: Site):
    assert site.run("-m", "sbe", "--version") == (0, VERSION, "")


def test_the_other_beside_ours_is_said_by_version(site: Site):
    site.install_foreign()
    code, out, err = site.run("-m", "sbe", "--version")
    assert (code, out) == (0, VERSION)
    assert err == (
        f"sbe: warning: the distribution sbe 0.4.3 in {site.folder} has the same import name and "
        f"may replace or remove files of this one. {KEEP_ONE}\n"
    )


def test_the_other_beside_ours_is_said_by_the_daemon(site: Site):
    site.install_foreign()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind("")  # the kernel chooses a name
        address = "@" + notify.getsockname()[1:].decode()
        log = site.folder / "log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                site.command("-m", "sbe.daemon", "--socket", "s"),
                stderr=stream,
                env={**site.environment, "NOTIFY_SOCKET": address},
                cwd=site.folder,
            )
        try:
            wait_until_ready(process, notify, log)
        finally:
            process.terminate()
            process.wait(20)
    assert "the distribution sbe 0.4.3" in log.read_text()


def test_the_other_over_ours_is_said_by_every_command(site: Site):
    site.install_foreign()
    (site.package / "__init__.py").write_text("def encode(): ...\n")
    code, out, err = site.run("-m", "sbe", "ping")
    assert (code, out) == (1, "")
    assert err == (
        f"sbe: error: the distribution sbe 0.4.3 in {site.folder} has the same import name and has "
        f"replaced sbe/__init__.py. {KEEP_ONE}\n"
    )


def test_what_is_left_of_ours_after_the_other_was_removed(site: Site):
    (site.package / "__init__.py").unlink()
    code, out, err = site.run("-m", "sbe", "ping")
    assert (code, out) == (1, "")
    assert err == (
        f"sbe: error: sbe/__init__.py is gone or not ours, as after `pip uninstall sbe`: {REPAIR}\n"
    )


@pytest.mark.parametrize("other", [False, True])
def test_without_the_extension_import_says_what_to_do(site: Site, other: bool):
    (site.package / Path(_native.__file__).name).unlink()
    if other:
        site.install_foreign()
    environment = {**site.environment, "PYTHONPATH": str(site.folder)}
    done = subprocess.run(
        site.command("-c", "import sbe"), capture_output=True, text=True, env=environment
    )
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert said.startswith("ImportError: the extension sbe._native can't be imported (")
    assert "In a checkout: `make build`, then .venv/bin/python; elsewhere: " in said
    assert ("sbe 0.4.3" in said) is other
    assert said.endswith(REPAIR)


# Nothing proposes it

SKIPPED = {".git", ".venv", "build", "dist", "__pycache__"}
INSTALLS = re.compile(
    r"\b(?:pip[3x]?|uv|poetry|conda)\s+(?:pip\s+|tool\s+)?"
    r"(?:install|download|wheel|add|inject|run)\s+([^`;,)]{0,160})"
)
NAMES = re.compile(r"""["'(]?sbe(?![\w.-])""")
REQUIRES = re.compile(
    r"\bsbe\[[\w, -]+\](?!\s*=)|^\s*[\"']?sbe\s*(?:[=~>!]=|@\s)"
    r"|(?:distribution|version|requires|metadata)\([\"']sbe[\"']\)",
    re.M,
)


def proposals(text: str) -> Iterator[str]:
    """Whatever installs or requires a distribution named sbe."""
    for found in INSTALLS.finditer(text):
        if any(NAMES.match(word) for word in found[1].split()):
            yield found[0]
    yield from (found[0] for found in REQUIRES.finditer(text))


def texts() -> Iterator[tuple[Path, str]]:
    for folder, inner, names in os.walk(ROOT):
        inner[:] = [
            name
            for name in inner
            if name not in SKIPPED and not name.startswith((".mypy", ".ruff"))
        ]
        for path in (Path(folder, name) for name in names):
            try:
                yield path, path.read_text()
            except (UnicodeDecodeError, OSError):
                continue


def test_nothing_proposes_the_other_project():
    found = [
        f"{path.relative_to(ROOT)}: {what}" for path, text in texts() for what in proposals(text)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("words", "proposes"),
    [
        (("pip install", "{}"), True),
        (("pip install", "'{}[cli]'"), True),
        (("pip install -U numpy", "{}==0.4"), True),
        (("pipx install", "{}"), True),
        (("uv pip install", "{}"), True),
        (("pip install", "\n    '{}[daemon]'"), True),
        (("the extra", "{}[daemon]"), True),
        (("  ", "{}>=0.1\n"), True),
        (("metadata.version", "{}"), False),
        (("pip uninstall", "{}"), False),
        (("pip install", "'structured-buffer-exchange[cli]', then {} ping"), False),
        (("pip install", "./{}-0.1.whl"), False),
    ],
)
def test_a_proposal_is_recognised(words: tuple[str, str], proposes: bool):
    text = " ".join(words).format("sbe")
    assert any(proposals(text)) is proposes
