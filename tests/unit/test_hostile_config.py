"""Values that nobody means, at every key: a line that says so, or a configuration that is sound."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

import sbe
from sbe.daemon import config

VALUES = [
    *("9" * 400, "-1", "1e400", "nan", "-inf", "true", "[]", "[[]]", "[1]", "{}", "{a = 1}"),
    *("1979-05-27T07:32:00Z", "07:32:00", "0x7fffffffffffffff", "0o17", "1.5"),
    *('""', '"/"', '"/a\\nb"', f'"{"/x" * 5000}"', '"0777"', '"../../etc"', '"\\U0001F600"'),
    *('[""]', '["dma-heap:.."]', '"unix:"', '"serial:,"', '"serial:/dev/x,99999999999999999999"'),
]
NULS = ['"\\u0000"', '"/a\\u0000b"', '["\\u0000"]', '["/bin/true", "a\\u0000"]', '"unix:/\\u0000"']
WORDS = ["true", '"30"', '"0777"', "nan", "inf", "-1", "0", "1e400"]
KINDS: dict[str, type[BaseModel]] = {
    "embedded": config.EmbeddedLink,
    "rpmsg": config.RpmsgLink,
    "carveout": config.CarveoutLink,
}
TABLES: dict[str, type[BaseModel]] = {
    "daemon": config.DaemonConfig,
    "log": config.LogConfig,
    "policy.default": config.Quota,
    "policy.uid.1": config.QuotaOverride,
}
PARTS: dict[str, type[BaseModel]] = {
    "limits": config.RemoteLimits,
    "restart": config.RestartPolicy,
    "power": config.PowerConfig,
}
ARENA = {"name": '"a"', "memory": '"/dev/uio0"', "size": "4096", "address": "0"}


def documents(values: list[str]) -> list[str]:
    """A file for each key and value."""
    made = []
    for value in values:
        for table, model in TABLES.items():
            made += [f"[{table}]\n{key} = {value}\n" for key in model.model_fields]
        for kind, link in KINDS.items():
            head = f"[[link]]\ntransport = '{kind}'\n"
            keys = [key for key in link.model_fields if key != "transport"]
            made += [f"{head}{key} = {value}\n" for key in keys]
        for table, part in PARTS.items():
            made += [f"[[link]]\n[link.{table}]\n{key} = {value}\n" for key in part.model_fields]
        for key in config.CarveoutArena.model_fields:
            arena = "".join(f"{k} = {v}\n" for k, v in {**ARENA, key: value}.items())
            head = "[[link]]\ntransport = 'rpmsg'\ntrust_clients = true\n[[link.carveout]]\n"
            made.append(head + arena)
    return made


def attempt(path: Path, text: str) -> config.Config | None:
    path.write_text(text)
    lines: list[str] = []
    try:
        return config.load(path)
    except config.ConfigError as error:
        lines = error.lines
    assert lines
    for line in lines:
        assert line.startswith(f"{path}: ")
        assert len(line) < 1000
        assert line.isprintable()
    return None


def test_every_value_at_every_key(tmp_path: Path):
    path = tmp_path / "daemon.toml"
    sound = [text for text in documents(VALUES) if attempt(path, text) is not None]
    assert 0 < len(sound) < 100


def test_every_value_at_every_key_of_a_link(tmp_path: Path):
    """Of the file that a carve-out URI names, up to the attempt to open what it says."""
    ram, path = tmp_path / "ram", tmp_path / "link.toml"
    ram.write_bytes(bytes(65536))
    sound = {
        "memory": f'"{ram}"',
        "doorbell": f'"unix:{tmp_path / "nobody"}"',
        "offset": "0",
        "size": "65536",
    }
    more = ["1", "4096", "9223372036854775807", '"/dev/null"', '"/"', '"serial:/dev/null,1"']
    for key in sound:
        for value in [*VALUES, *NULS, *more]:
            path.write_text("".join(f"{k} = {v}\n" for k, v in {**sound, key: value}.items()))
            with pytest.raises(sbe.Error) as raised:
                sbe.connect(f"carveout:{path}")
            assert len(str(raised.value)) < 1000 or "/x/x" in value


def test_nothing_with_a_nul_is_taken(tmp_path: Path):
    """Where it goes to the kernel it would be another thing than it looks, or an exception."""
    path = tmp_path / "daemon.toml"
    for text in documents(NULS):
        assert attempt(path, text) is None, text


@pytest.mark.parametrize("key", ["restart.max_seconds", "power.seconds", "answer_seconds"])
@pytest.mark.parametrize("value", WORDS)
def test_seconds_are_numbers_above_zero(tmp_path: Path, key: str, value: str):
    assert attempt(tmp_path / "daemon.toml", f"[[link]]\n{key} = {value}\n") is None


def test_a_heap_is_a_name(tmp_path: Path):
    text = "[[link]]\ntransport = 'rpmsg'\nheaps = ['dma-heap:..']\n"
    assert attempt(tmp_path / "daemon.toml", text) is None
