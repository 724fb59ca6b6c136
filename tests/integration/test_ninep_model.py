"""Random operations on the remote's files beside a model of them."""

from __future__ import annotations

import errno
import os
import random
from dataclasses import dataclass, field
from typing import Any

import pytest

import sbe
from tests.integration.ninep import served

NAMES = ["a", "b", "c", "d"]
SIZES = [0, 1, 100, 4095, 4096, 4097, 20_000]


@dataclass
class Model:
    """Files by path, None for a directory; and open files, which may have lost their names."""

    tree: dict[str, bytearray | None] = field(default_factory=lambda: {"ram": None})
    opened: dict[int, bytearray] = field(default_factory=dict)

    def below(self, path: str) -> list[str]:
        """What is in a directory, at any depth."""
        return [name for name in self.tree if name.startswith(path + "/")]

    def check_new(self, path: str) -> int:
        folder = path.rpartition("/")[0]
        if folder not in self.tree:
            return errno.ENOENT
        if self.tree[folder] is not None:
            return errno.ENOTDIR
        return errno.EEXIST if path in self.tree else 0


class Both:
    """A client, or what has the same calls, and the model: each operation has the same outcome in
    both."""

    def __init__(self, client: Any, source: random.Random) -> None:
        self.client, self.source, self.model = client, source, Model()

    def path(self) -> str:
        """Mostly one that is there."""
        folders = [path for path, content in self.model.tree.items() if content is None]
        if self.source.random() < 0.5:
            return self.source.choice(list(self.model.tree))
        return f"{self.source.choice(folders)}/{self.source.choice(NAMES)}"

    def outcome(self, operation: object, *arguments: object) -> int:
        try:
            operation(*arguments)  # type: ignore[operator]
        except OSError as error:
            return error.errno or 0
        return 0

    def create(self) -> None:
        path = self.path()
        if path == "ram":
            return
        code = self.model.check_new(path)
        fid = 0

        def create() -> None:
            nonlocal fid
            fid = self.client.create(path)

        got = self.outcome(create)
        assert got == code or (code == errno.ENOTDIR and got == errno.ENOENT)
        if code:
            return
        content = self.model.tree[path] = bytearray()
        self.model.opened[fid] = content

    def mkdir(self) -> None:
        path = self.path()
        if path == "ram":
            return
        code = self.model.check_new(path)
        got = self.outcome(self.client.mkdir, path)
        assert got == code or (code == errno.ENOTDIR and got == errno.ENOENT)
        if code == 0:
            self.model.tree[path] = None

    def remove(self) -> None:
        path = self.path()
        is_folder = self.model.tree.get(path, b"") is None
        if path == "ram":
            return
        code = 0
        if path not in self.model.tree:
            code = errno.ENOENT
        elif self.model.below(path):
            code = errno.ENOTEMPTY
        got = self.outcome(self.client.rmdir if is_folder else self.client.unlink, path)
        assert got == code or (code == errno.ENOENT and got == errno.ENOTDIR)
        if code == 0:
            del self.model.tree[path]

    def rename(self) -> None:
        old, new = self.path(), self.path()
        model = self.model.tree
        if "ram" in (old, new) or old not in model or new.rpartition("/")[0] not in model:
            return
        if model[new.rpartition("/")[0]] is not None:
            return
        code = 0
        if new.startswith(old + "/"):
            code = errno.EINVAL
        elif new in model and new != old:
            if model[old] is None and model[new] is not None:
                code = errno.ENOTDIR
            elif model[old] is not None and model[new] is None:
                code = errno.EISDIR
            elif self.model.below(new):
                code = errno.ENOTEMPTY
        got = self.outcome(self.client.rename, old, new)
        # The kernel looks first at whether what is replaced has the other in it.
        assert got == code or (old.startswith(new + "/") and got == errno.ENOTEMPTY)
        if code == 0 and old != new:
            for path in [*self.model.below(old), old]:
                model[new + path[len(old) :]] = model.pop(path)

    def write(self) -> None:
        if not self.model.opened:
            return
        fid, content = self.source.choice(list(self.model.opened.items()))
        offset, data = self.source.choice(SIZES), self.source.randbytes(self.source.choice(SIZES))
        assert self.client.write_at(fid, offset, data) == len(data)
        if data:
            content.extend(bytes(max(0, offset + len(data) - len(content))))
            content[offset : offset + len(data)] = data

    def read(self) -> None:
        if not self.model.opened:
            return
        fid, content = self.source.choice(list(self.model.opened.items()))
        offset, count = self.source.choice(SIZES), self.source.choice(SIZES)
        assert self.client.read_at(fid, offset, count) == content[offset : offset + count]
        assert self.client.attributes_of(fid).size == len(content)

    def truncate(self) -> None:
        files = [path for path, content in self.model.tree.items() if content is not None]
        if not files:
            return
        path, size = self.source.choice(files), self.source.choice(SIZES)
        content = self.model.tree[path]
        assert content is not None
        self.client.truncate(path, size)
        content.extend(bytes(max(0, size - len(content))))
        del content[size:]

    def reopen(self) -> None:
        if len(self.model.opened) > 5:
            fid = self.source.choice(list(self.model.opened))
            self.client.clunk(fid)
            del self.model.opened[fid]

    def step(self) -> None:
        """Any of them."""
        seldom = [self.create, self.mkdir, self.remove, self.rename, self.truncate, self.reopen]
        self.source.choice([*seldom, self.write, self.write, self.read, self.read])()

    def check(self) -> None:
        """All of it, from the top."""
        for path, content in self.model.tree.items():
            if content is not None:
                assert self.client.read(path) == content
                continue
            names = {name[len(path) + 1 :] for name in self.model.below(path)}
            assert self.client.names(path) == {name for name in names if "/" not in name}

    def clear(self) -> None:
        for fid in self.model.opened:
            self.client.clunk(fid)
        for path in sorted(self.model.tree, reverse=True):
            if path != "ram":
                (self.client.rmdir if self.model.tree[path] is None else self.client.unlink)(path)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("msize", [24 + 20_000, 1 << 18])
def test_operations_at_random(seed: int, msize: int) -> None:
    source = random.Random(seed)
    with sbe.connect("loopback:") as link, served(link, msize) as client:
        free = client.free()
        both = Both(client, source)
        for number in range(1500):
            both.step()
            if number % 250 == 0:
                both.check()
        both.check()
        both.clear()
        assert client.free() == free, os.linesep.join(both.model.tree)
