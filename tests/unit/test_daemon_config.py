"""A configuration that is wrong gives one line for each mistake: file, key and reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sbe.daemon import config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def errors(tmp_path: Path):
    def load(text: str) -> list[str]:
        path = tmp_path / "daemon.toml"
        path.write_text(text)
        with pytest.raises(config.ConfigError) as caught:
            config.load(path)
        prefix = f"{path}: "
        assert all(line.startswith(prefix) for line in caught.value.lines)
        return [line.removeprefix(prefix) for line in caught.value.lines]

    return load


def load_text(tmp_path: Path, text: str) -> config.Config:
    path = tmp_path / "daemon.toml"
    path.write_text(text)
    return config.load(path)


def test_example_is_legal_and_shows_the_defaults(tmp_path: Path):
    shown = config.load(ROOT / "linux" / "etc" / "daemon.toml")
    assert shown == load_text(tmp_path, "")


def test_example_names_every_key():
    text = (ROOT / "linux" / "etc" / "daemon.toml").read_text()
    for table in (
        config.DaemonConfig,
        config.EmbeddedLink,
        config.RpmsgLink,
        config.CarveoutArena,
        config.CarveoutLink,
        config.RemoteLimits,
        config.RestartPolicy,
        config.Quota,
        config.LogConfig,
    ):
        for key in table.model_fields:
            assert f"{key} = " in text or f"[link.{key}]" in text or f"[[link.{key}]]" in text, key


ARENA = "[[link.carveout]]\nname = 'a'\nmemory = '/dev/uio0'\nsize = 1048576\naddress = 0\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[daemon]\nsoket = '/x'", "daemon.soket: unknown key; did you mean 'socket'?"),
        ("[lgo]", "lgo: unknown key; did you mean 'log'?"),
        (
            "[[link]]\nname = 'a'\n[link.restart]\nmax_second = 3",
            "link[0].restart.max_second: unknown key; did you mean 'max_seconds'?",
        ),
        (
            "[policy.uid.1000]\narreas = 1",
            "policy.uid.1000.arreas: unknown key; did you mean 'areas'?",
        ),
        ("[log]\nzzz = 1", "log.zzz: unknown key; known are: level, format"),
        ("[daemon]\nmode = 660", 'daemon.mode: must be octal digits in quotes, like "0660"'),
        ("[daemon]\nmode = '0888'", "daemon.mode: must be three octal digits"),
        ("[daemon]\nsocket = 'run/sbe'", "daemon.socket: must be an absolute path"),
        (f"[daemon]\nsocket = '/{'x' * 120}'", "daemon.socket: must be at most 107 bytes"),
        ("[daemon]\ngroup = 'no-such-group'", "daemon.group: no such group"),
        ("[[link]]\ntransport = 'pigeon'", "link[0].transport: must be one of 'embedded', 'rpmsg'"),
        ("[[link]]\ntransport = 3", "link[0].transport: must be one of 'embedded', 'rpmsg'"),
        (
            "[[link]]\ntransport = 'rpmsg'\nprocesor = 'm33'",
            "link[0].procesor: unknown key; did you mean 'processor'?",
        ),
        (
            "[[link]]\ntransport = 'rpmsg'\nstart = true",
            "link[0]: start = true needs processor = NAME",
        ),
        (
            "[[link]]\ncomand = ['x']",
            "link[0].comand: unknown key; did you mean 'command'?",
        ),
        (
            "[[link]]\ntransport = 'rpmsg'\nheaps = ['udmabuf', 'memfd']",
            "link[0].heaps[1]: must be 'udmabuf', 'coherent', 'dma-heap:NAME', 'ion:NAME' or "
            "'carveout:NAME' (not 'memfd')",
        ),
        (
            f"[[link]]\ntransport = 'rpmsg'\n{ARENA}",
            "link[0]: every client would reach all of /dev/uio0: say trust_clients = true",
        ),
        (
            f"[[link]]\ntransport = 'rpmsg'\ntrust_clients = true\n{ARENA}{ARENA}",
            "link[0]: carveout: names must differ: a, a",
        ),
        (
            f"[[link]]\ntransport = 'rpmsg'\n{ARENA}offset = 100\n",
            "link[0].carveout[0].offset: must be a multiple of",
        ),
        (
            f"[[link]]\ntransport = 'rpmsg'\n{ARENA}adress = 1\n",
            "link[0].carveout[0].adress: unknown key; did you mean 'address'?",
        ),
        (
            "[[link]]\ntransport = 'carveout'\nmemory = '/dev/uio0'\ndoorbell = 'unix:/x'",
            "link[0]: every client would reach all of /dev/uio0: say trust_clients = true",
        ),
        (
            "[[link]]\ntransport = 'carveout'\nmemory = '/dev/uio0'\ndoorbell = '/x'",
            "link[0].doorbell: must be unix:PATH, serial:DEVICE,BAUD, uio:DEVICE,MAP,OFFSET,",
        ),
        (
            "[[link]]\nhuge_pages = true",
            "link[0]: every client with an area of huge pages could end the remote",
        ),
        (
            "[[link]]\ntransport = 'carveout'\ndoorbell = 'unix:/x'",
            "link[0].memory: field required",
        ),
        ("[link]\nname = 'a'", "link: must be a valid list"),
        ("link = []", "link: list should have at least 1 item"),
        ("[[link]]\nname = 'a b'", "link[0].name: must be 1 to 32 letters"),
        ("[[link]]\nlimits = {slots = 3}", "link[0].limits: slots must be a power of two"),
        (
            "[[link]]\nrestart = {initial_seconds = 5, max_seconds = 1}",
            "link[0].restart: initial_seconds must not exceed max_seconds",
        ),
        ("[[link]]\nname = 'a'\n[[link]]\nname = 'a'", "the file: 2 links are named 'a'"),
        (
            "[policy.default]\nareas = -1",
            "policy.default.areas: must be greater than or equal to 0",
        ),
        ("[policy.default]\nbytes = '1G'", "policy.default.bytes: must be a valid integer"),
        ("[policy.default]\nbytes = true", "policy.default.bytes: must be a valid integer"),
        ("[policy.uid.alice]\nareas = 1", "policy.uid.alice: must be a number"),
        ("[policy.gid.99999999999]\nareas = 1", "policy.gid.99999999999: must be at most"),
        ("[log]\nlevel = 'loud'", "log.level: must be 'debug', 'info', 'warning' or 'error'"),
        ("[log", "is no valid TOML: "),
        ("[log]\nlevel = 1\nlevel = 2", "is no valid TOML: "),
    ],
)
def test_mistake_is_named(errors, text: str, expected: str):
    [line] = errors(text)
    assert line.startswith(expected)


def test_every_mistake_is_told_at_once(errors):
    lines = errors("[daemon]\nsoket = 1\nmode = 1\n[log]\nlevel = 1")
    assert [line.split(":")[0] for line in lines] == ["daemon.mode", "daemon.soket", "log.level"]


def test_missing_file_is_named(tmp_path: Path):
    with pytest.raises(config.ConfigError, match=r"nowhere.toml: can't be read: No such file"):
        config.load(tmp_path / "nowhere.toml")


def test_file_that_is_no_text_is_named(tmp_path: Path):
    path = tmp_path / "daemon.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(config.ConfigError, match="is no valid TOML"):
        config.load(path)


def test_values_arrive(tmp_path: Path):
    loaded = load_text(
        tmp_path,
        """
        [daemon]
        socket = "/run/x/y.sock"
        group = "root"
        mode = "0600"
        [[link]]
        name = "dsp"
        command = ["/bin/remote", "--spin-us", "10"]
        limits = { areas = 7 }
        [policy.default]
        areas = 3
        [policy.uid.1000]
        areas = 5
        [log]
        format = "json"
        """,
    )
    assert loaded.daemon.mode == 0o600
    assert loaded.daemon.group == "root"
    assert isinstance(loaded.link[0], config.EmbeddedLink)
    assert loaded.link[0].command == ["/bin/remote", "--spin-us", "10"]
    assert loaded.link[0].limits.areas == 7
    assert loaded.policy.default.areas == 3
    assert loaded.policy.uid[1000].areas == 5
    assert loaded.policy.uid[1000].bytes is None
    assert loaded.log.format == "json"


def test_byte_order_mark(tmp_path: Path):
    assert load_text(tmp_path, "\ufeff[log]\nlevel = 'error'").log.level == "error"


@pytest.mark.parametrize("text", ["a = " + "[" * 5000 + "]" * 5000, "a = " + "{a = " * 5000])
def test_nested_too_deeply(errors, text: str):
    assert errors(text) == ["is no valid TOML: its brackets are nested too deeply"]


def test_file_without_an_end():
    with pytest.raises(config.ConfigError, match=r"^/dev/zero has no end, or more than the 1,048"):
        config.load(Path("/dev/zero"))


def test_socket_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SBE_SOCKET", "/run/other/control.sock")
    assert load_text(tmp_path, "").daemon.socket == "/run/other/control.sock"
    assert load_text(tmp_path, "[daemon]\nsocket = '/a/b'").daemon.socket == "/a/b"
    monkeypatch.setenv("SBE_SOCKET", "unix:/run/other/uri.sock")
    assert load_text(tmp_path, "").daemon.socket == "/run/other/uri.sock"
    monkeypatch.setenv("SBE_SOCKET", "")
    assert load_text(tmp_path, "").daemon.socket == "/run/sbe/control.sock"
    monkeypatch.setenv("SBE_SOCKET", "relative")
    with pytest.raises(config.ConfigError, match="SBE_SOCKET='relative': must be an absolute"):
        load_text(tmp_path, "[log]")
    assert config.load(tmp_path / "daemon.toml", socket="unix:/c").daemon.socket == "/c"


# -- who can change it


def test_a_configuration_that_others_can_change(tmp_path: Path):
    path = tmp_path / "daemon.toml"
    path.write_text("")
    path.chmod(0o666)
    with pytest.raises(config.ConfigError) as raised:
        config.load(path)
    assert str(raised.value).startswith(f"others can write the file {path} (mode 0666)")
    path.chmod(0o644)
    config.load(path)
    tmp_path.chmod(0o777)
    try:
        with pytest.raises(config.ConfigError, match=f"others can write the folder {tmp_path} "):
            config.load(path)
        tmp_path.chmod(0o1777)  # each has his own there, as in /tmp
        config.load(path)
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize("link", ["", "real", "/{folder}/deep/../real", "{folder}/other"])
def test_a_program_that_others_can_change(tmp_path: Path, link: str):
    """By whatever way it is found."""
    program = tmp_path / "real"
    (tmp_path / "deep").mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (tmp_path / "other").symlink_to("deep/../real")
    named = tmp_path / "named" if link else program
    if link:
        named.symlink_to(link.format(folder=tmp_path))
    text = f"[[link]]\ncommand = ['{named}']\n[link.power]\ncommand = ['{named}', 'x']\n"
    load_text(tmp_path, text)
    program.chmod(0o757)
    with pytest.raises(config.ConfigError) as raised:
        load_text(tmp_path, text)
    path = tmp_path / "daemon.toml"
    said = f"others can write the file {program} (mode 0757)"
    assert sorted(line.partition(", and so")[0] for line in raised.value.lines) == [
        f"{path}: link[0].command: {said}",
        f"{path}: link[0].power.command: {said}",
    ]


@pytest.mark.skipif(os.getuid() != 0, reason="giving files away needs root")
def test_what_belongs_to_others(tmp_path: Path):
    path = tmp_path / "daemon.toml"
    path.write_text("")
    os.chown(path, 65533, -1)
    with pytest.raises(config.ConfigError, match=f"the file {path} belongs to user 65533, who"):
        config.load(path)
    os.chown(path, 0, 65533)
    path.chmod(0o660)  # its group is not ours
    with pytest.raises(config.ConfigError, match=f"others can write the file {path} "):
        config.load(path)
    os.chown(path, 0, 0)
    config.load(path)
    os.chown(tmp_path, 65533, -1)
    try:
        with pytest.raises(config.ConfigError, match=f"the folder {tmp_path} belongs to user 6553"):
            config.load(path)
    finally:
        os.chown(tmp_path, 0, -1)


def test_a_program_that_is_not_there_is_told_later(tmp_path: Path):
    text = "[[link]]\ncommand = ['/no/such']\n[link.power]\ncommand = ['no-such-program']"
    assert load_text(tmp_path, text).link[0].power.command == ["no-such-program"]
