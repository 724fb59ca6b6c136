"""The daemon's configuration: a TOML file, checked completely before anything starts.

    [daemon]              socket, group, mode, max_connections
    [[link]]              name, answer_seconds, stuck_seconds, work_seconds, and
                          transport = "embedded", command, huge_pages,
                          trust_clients; or
                          transport = "rpmsg", processor, start, coherent, heaps, budget_bytes,
                          rings; or
                          transport = "carveout", memory, map, offset, size, doorbell,
                          reset, trust_clients
    [[link.carveout]]     of an rpmsg link: name, memory, map, offset, size, address; such a link
                          has trust_clients too
    [link.limits]         areas, contexts, channels, slots, slot_size: what an embedded remote may
                          hold
    [link.restart]        initial_seconds, max_seconds
    [link.power]          command, seconds: what is done when the remote asks
    [policy.default]      quotas of one user: bytes, areas, channels, contexts, ..., and power,
                          restart
    [policy.uid.N]        the same keys for one user,
    [policy.gid.N]        or for the members of a group; what is not given comes from the default
    [log]                 level, format

linux/etc/daemon.toml shows every key. A wrong file gives one line for each mistake, which names
the file, the key and the reason.
"""

from __future__ import annotations

import difflib
import grp
import math
import mmap
import os
import re
import shutil
import typing
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from sbe import control, errors
from sbe.host import files, sockets
from sbe.transports.doorbell import FORMS, is_doorbell

__all__ = [
    "DEFAULT_PATH",
    "RESTART_WORDS",
    "CarveoutArena",
    "CarveoutLink",
    "Config",
    "ConfigError",
    "DaemonConfig",
    "EmbeddedLink",
    "LinkConfig",
    "LogConfig",
    "PolicyConfig",
    "PowerConfig",
    "Quota",
    "QuotaOverride",
    "RemoteLimits",
    "RestartPolicy",
    "RpmsgLink",
    "load",
]

DEFAULT_PATH = Path("/etc/sbe/daemon.toml")
DEFAULT_GROUP = "rpmsg"

_ID_MAX = 2**32 - 2  # of a uid or gid; all ones means "none"
_COUNT_MAX = 2**31 - 1
_BYTES_MAX = 2**48
_SECONDS_MAX = 86400


class ConfigError(Exception):
    """The configuration is wrong. `lines` says where and why, one mistake each."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _octal(value: object) -> object:
    """Modes are written as strings, "0660": TOML's own octal is easily forgotten."""
    if isinstance(value, str):
        if not re.fullmatch(r"0?o?[0-7]{3}", value):
            raise ValueError('must be three octal digits in quotes, like "0660"')
        return int(value.replace("o", ""), 8)
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError('must be octal digits in quotes, like "0660"')
    return value


def _text(value: str) -> str:
    """What is handed to the kernel, as a path or an argument."""
    if "\0" in value:
        raise ValueError("must have no NUL")
    return value


def _filled(value: list[str]) -> list[str]:
    if not value[0]:
        raise ValueError("must begin with a program")
    return value


def _absolute(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("must be an absolute path")
    return _text(value)


def _number(value: object) -> object:
    """TOML's own: an integer where a fraction may be, but no word for one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number")
    return value


def _limit(value: object) -> object:
    """Seconds, or "never"."""
    if value == "never":
        return math.inf
    if isinstance(value, str):
        raise ValueError('must be a number or "never"')
    number = _number(value)
    if isinstance(number, int | float) and number > _SECONDS_MAX:
        raise ValueError(f'must be at most {_SECONDS_MAX}, or "never"')
    return number


def _socket(value: str) -> str:
    """Other programs than ours shall reach it too, as it is written here."""
    if len(os.fsencode(_absolute(value))) > sockets.ADDRESS_MAX:
        raise ValueError(
            f"must be at most {sockets.ADDRESS_MAX} bytes, which is what a unix socket's address "
            "holds"
        )
    return value


def _known_group(value: str | None) -> str | None:
    """An empty name means the daemon's own group."""
    if value:
        try:
            grp.getgrnam(value)
        except KeyError:
            raise ValueError("no such group on this system") from None
    return value or None


def _default_group() -> str | None:
    try:
        return grp.getgrnam(DEFAULT_GROUP).gr_name
    except KeyError:
        return None


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}", value):
        raise ValueError("must be 1 to 32 letters, digits, '.', '_' or '-'")
    return value


Count: TypeAlias = Annotated[int, Field(ge=0, le=_COUNT_MAX)]
Bytes: TypeAlias = Annotated[int, Field(ge=0, le=_BYTES_MAX)]
Seconds: TypeAlias = Annotated[
    float, BeforeValidator(_number), Field(gt=0, le=_SECONDS_MAX, strict=False)
]
Limit: TypeAlias = Annotated[float, BeforeValidator(_limit), Field(gt=0, strict=False)]
Command: TypeAlias = Annotated[
    list[Annotated[str, AfterValidator(_text)]], Field(min_length=1), AfterValidator(_filled)
]


class DaemonConfig(_Table):
    """Where clients find the daemon, and who may."""

    socket: Annotated[str, AfterValidator(_socket)] = Field(
        default_factory=control.default_socket, validate_default=True
    )
    group: Annotated[str | None, AfterValidator(_known_group)] = Field(
        default_factory=_default_group
    )
    mode: Annotated[int, BeforeValidator(_octal)] = 0o660
    max_connections: Annotated[int, Field(ge=1, le=65536)] = 512


class RemoteLimits(_Table):
    """What the embedded remote is told to hold at most; None leaves it to the remote."""

    areas: Annotated[int, Field(ge=1, le=65535)] | None = None
    contexts: Annotated[int, Field(ge=1, le=65535)] | None = None
    channels: Annotated[int, Field(ge=1, le=65535)] | None = None
    slots: Annotated[int, Field(ge=2, le=65536)] | None = None
    slot_size: Annotated[int, Field(ge=64, le=65536)] | None = None

    @model_validator(mode="after")
    def _shapes(self) -> RemoteLimits:
        if self.slots is not None and self.slots & (self.slots - 1):
            raise ValueError("slots must be a power of two")
        if self.slot_size is not None and self.slot_size % 64:
            raise ValueError("slot_size must be a multiple of 64")
        return self


class RestartPolicy(_Table):
    """The pause before a remote is started again: it doubles from the first to the last."""

    initial_seconds: Seconds = 0.1
    max_seconds: Seconds = 30.0

    @model_validator(mode="after")
    def _ordered(self) -> RestartPolicy:
        if self.initial_seconds > self.max_seconds:
            raise ValueError("initial_seconds must not exceed max_seconds")
        return self


class PowerConfig(_Table):
    """Who carries out what a remote asks: suspend, resume, a frequency."""

    command: Command | None = None
    """The program and its first arguments; without one, remotes are answered ENOTSUP."""
    seconds: Seconds = 30.0
    """It is killed after so long."""


class _Link(_Table):
    """What links of every kind have, beside a name."""

    answer_seconds: Seconds = 10.0
    """A remote that answers no ping for so long, and shows no sign of life, is started again."""
    stuck_seconds: Limit = 30.0
    """One that runs a service's handler has so long for the next sign of life."""
    work_seconds: Limit = 600.0
    """One that shows signs of life has so long for its answer."""
    restart: RestartPolicy = RestartPolicy()
    power: PowerConfig = PowerConfig()


class EmbeddedLink(_Link):
    """A link to the embedded remote, a child process of the daemon."""

    transport: Literal["embedded"] = "embedded"
    name: Annotated[str, AfterValidator(_name)] = "embedded"
    command: Command | None = None
    """The program and its first arguments; by default the sbe-remote of this package."""
    limits: RemoteLimits = RemoteLimits()
    huge_pages: bool = False
    """Areas may come from the heap "hugetlb" too."""
    trust_clients: bool = False
    """Every client may end the remote, by a hole in an area of huge pages."""

    @model_validator(mode="after")
    def _trusted(self) -> Self:
        if self.huge_pages and not self.trust_clients:
            raise ValueError(
                "every client with an area of huge pages could end the remote, by punching a hole "
                "into it: say trust_clients = true if that is meant"
            )
        return self


def _heap(value: str) -> str:
    if not re.fullmatch(r"udmabuf|coherent|(dma-heap|ion|carveout):(?!\.)[A-Za-z0-9_.,-]+", value):
        raise ValueError(
            "must be 'udmabuf', 'coherent', 'dma-heap:NAME', 'ion:NAME' or 'carveout:NAME'"
        )
    return value


def _doorbell(value: str) -> str:
    if not is_doorbell(_text(value)):
        raise ValueError(f"must be {FORMS}")
    return value


def _pages(value: int) -> int:
    if value % mmap.PAGESIZE:
        raise ValueError(f"must be a multiple of {mmap.PAGESIZE}, a page")
    return value


def _check_trust(memory: str | None, trusted: bool) -> None:
    """There are no descriptors for a part of a file (docs/adr/0013-trusted-clients.md)."""
    if memory is not None and not trusted:
        raise ValueError(
            f"every client would reach all of {memory}: say trust_clients = true if that is meant"
        )


Pages: TypeAlias = Annotated[int, Field(ge=0, le=2**63 - 1), AfterValidator(_pages)]
UioMap: TypeAlias = Annotated[int, Field(ge=0, le=63)]


class CarveoutArena(_Table):
    """Memory that is reserved for sharing, as a file or device that can be mapped."""

    name: Annotated[str, AfterValidator(_name)]
    memory: Annotated[str, AfterValidator(_absolute)]
    """A UIO device, say, from `offset` for `size` bytes."""
    size: Annotated[Pages, Field(gt=0)]
    address: Pages
    """The remote's address of the first of these bytes."""
    offset: Pages = 0
    map: UioMap | None = None
    """The UIO device's map that `offset` counts from; by default 0."""


class RpmsgLink(_Link):
    """A link to a co-processor behind the kernel's rpmsg."""

    transport: Literal["rpmsg"]
    name: Annotated[str, AfterValidator(_name)] = "rpmsg"
    processor: Annotated[str, Field(min_length=1), AfterValidator(_text)] | None = None
    """The remote processor's name in sysfs; by default the only one that speaks the protocol."""
    start: bool = False
    """Start that processor when it is down, and again when it can't be relied on."""
    coherent: bool = True
    """It sees the caches of Linux' cores, so that areas need no cache maintenance."""
    heaps: Annotated[list[Annotated[str, AfterValidator(_heap)]], Field(min_length=1)] | None = None
    """Where areas may come from, the default first; by default all that the kernel publishes."""
    budget_bytes: Bytes | None = None
    """Memory that areas may take together; by default half of the machine's."""
    rings: Literal["coherent", "messages"] | None = None
    """In shared memory, or as messages; by default in shared memory where there is any."""
    raw: bool = False
    """The firmware does not know the protocol: it has raw messages only."""
    carveout: list[CarveoutArena] = []
    """More heaps, "carveout:NAME" each; they are the first choice."""
    trust_clients: bool = False
    """Every client may reach all memory of all clients."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.start and self.processor is None:
            raise ValueError("start = true needs processor = NAME")
        names = [arena.name for arena in self.carveout]
        if len({*names}) < len(names):
            raise ValueError(f"carveout: names must differ: {', '.join(names)}")
        _check_trust(next((arena.memory for arena in self.carveout), None), self.trust_clients)
        return self


class CarveoutLink(_Link):
    """A link to firmware that shares a window of RAM and a byte stream with this end."""

    transport: Literal["carveout"]
    memory: Annotated[str, AfterValidator(_absolute)]
    doorbell: Annotated[str, AfterValidator(_doorbell)]
    name: Annotated[str, AfterValidator(_name)] = "carveout"
    offset: Pages = 0
    size: Annotated[Pages, Field(gt=0)] | None = None
    """Bytes from `offset`; by default all that there are."""
    map: UioMap | None = None
    """The UIO device's map that `offset` counts from; by default 0."""
    reset: Command | None = None
    """The program that resets the core, and its arguments; it has done so when it ends."""
    trust_clients: bool = False
    """Every client may reach the whole window."""

    @model_validator(mode="after")
    def _trusted(self) -> Self:
        _check_trust(self.memory, self.trust_clients)
        return self


LinkConfig: TypeAlias = EmbeddedLink | RpmsgLink | CarveoutLink
_LINKS: dict[str, type[BaseModel]] = {
    "embedded": EmbeddedLink,
    "rpmsg": RpmsgLink,
    "carveout": CarveoutLink,
}


def _transport(link: object) -> str | None:
    """A link that does not say is embedded."""
    if isinstance(link, dict):
        link = link.get("transport", "embedded")
    else:
        link = getattr(link, "transport", "embedded")
    return link if isinstance(link, str) else None


_AnyLink: TypeAlias = Annotated[
    Annotated[EmbeddedLink, Tag("embedded")]
    | Annotated[RpmsgLink, Tag("rpmsg")]
    | Annotated[CarveoutLink, Tag("carveout")],
    Discriminator(
        _transport,
        custom_error_type="transport",
        custom_error_message=f"must be one of {', '.join(map(repr, _LINKS))}",
    ),
]


RESTART_WORDS: Final = ("never", "alone", "always")
"""From the least to the most."""
Restart: TypeAlias = Literal["never", "alone", "always"]


def _endpoint(value: str) -> str:
    if not 0 < len(_text(value).encode(errors="replace")) < 32:
        raise ValueError("must be the name of an rpmsg channel, of 1 to 31 bytes")
    return value


Endpoint: TypeAlias = Annotated[str, AfterValidator(_endpoint)]


class Quota(_Table):
    """What all connections of one user may hold together."""

    bytes: Bytes = 1 << 30
    """Memory of areas and rings."""
    areas: Count = 512
    channels: Count = 64
    contexts: Count = 64
    in_flight: Count = 65536
    """Slots of all rings: as many transactions can be under way."""
    max_area_bytes: Bytes = 256 << 20
    """Size of a single area."""
    connections: Count = 128
    power: bool = False
    """May suspend and resume the remote, and ask for its frequency, for all who use it."""
    restart: Restart = "alone"
    """May start the remote again: also while others use it, only while nobody else does, never."""
    raw: list[Endpoint] = []
    """Endpoints of the remote's firmware to which messages of its own format may be sent: it may be
    made to read and write all that it reaches."""


class QuotaOverride(_Table):
    """Exceptions from the default for one user or group."""

    bytes: Bytes | None = None
    areas: Count | None = None
    channels: Count | None = None
    contexts: Count | None = None
    in_flight: Count | None = None
    max_area_bytes: Bytes | None = None
    connections: Count | None = None
    power: bool | None = None
    restart: Restart | None = None
    raw: list[Endpoint] | None = None


def _id(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"0|[1-9][0-9]*", value):
        raise ValueError("must be a number, as `id` prints it")
    if int(value) > _ID_MAX:
        raise ValueError(f"must be at most {_ID_MAX}")
    return int(value)


Id: TypeAlias = Annotated[int, BeforeValidator(_id)]


class PolicyConfig(_Table):
    """Quotas. A user's own entry goes before those of its groups, those before the default."""

    default: Quota = Quota()
    uid: dict[Id, QuotaOverride] = {}
    gid: dict[Id, QuotaOverride] = {}


class LogConfig(_Table):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class Config(_Table):
    """The whole file."""

    daemon: DaemonConfig = Field(default_factory=DaemonConfig)
    link: Annotated[list[_AnyLink], Field(min_length=1, max_length=64)] = [EmbeddedLink()]
    policy: PolicyConfig = PolicyConfig()
    log: LogConfig = LogConfig()

    @model_validator(mode="after")
    def _distinct_names(self) -> Config:
        names = [link.name for link in self.link]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{names.count(name)} links are named {name!r}")
        return self


def load(path: Path | None = None, *, socket: str | None = None) -> Config:
    """Reads and checks a file: this one, else DEFAULT_PATH if it exists, else only defaults.

    `socket` goes before the file's, that before $SBE_SOCKET. Raises ConfigError with one line for
    each mistake.
    """
    document: dict[str, Any] = {}
    where = "built-in defaults"
    if path is not None or DEFAULT_PATH.exists():
        path = path or DEFAULT_PATH
        where = str(path)
        try:
            files.check_unshared(path)
            document = files.read_toml(path)
        except errors.Error as error:
            raise ConfigError([str(error)]) from error
    _choose_socket(document, socket)
    config = _check(document, where)
    _check_programs(config, where)
    return config


def _check_programs(config: Config, where: str) -> None:
    """What is run is this user's or root's. One that is not there is told when it is needed."""
    lines = []
    for number, link in enumerate(config.link):
        programs: dict[str, str | None] = {}
        if link.power.command:
            programs["power.command"] = shutil.which(link.power.command[0])
        if isinstance(link, CarveoutLink) and link.reset:
            programs["reset"] = shutil.which(link.reset[0])
        if isinstance(link, EmbeddedLink) and link.command:
            programs["command"] = link.command[0]
        for key, program in programs.items():
            try:
                if program is not None:
                    files.check_unshared(program)
            except errors.PermissionDenied as error:
                lines.append(f"{where}: link[{number}].{key}: {error}")
    if lines:
        raise ConfigError(lines)


def _choose_socket(document: dict[str, Any], asked: str | None) -> None:
    daemon = document.setdefault("daemon", {})
    if not isinstance(daemon, dict):
        return  # which will be told
    named = control.named_socket()
    if asked is not None:
        given = asked.removeprefix("unix:")
        value, source = os.path.abspath(given) if given else "", f"--socket {asked!r}"
    elif named is not None and "socket" not in daemon:
        value, source = named, f"SBE_SOCKET={os.environ['SBE_SOCKET']!r}"
    else:
        return
    try:
        daemon["socket"] = _socket(value)
    except ValueError as error:
        raise ConfigError([f"{source}: {error}"]) from error


def _check(document: dict[str, Any], where: str) -> Config:
    try:
        return Config.model_validate(document)
    except ValidationError as error:
        lines = []
        for item in error.errors(include_url=False):
            location = item["loc"] + (("transport",) if item["type"] == "transport" else ())
            reason = _reason(item["loc"], item["type"], item)
            lines.append(f"{where}: {_dotted(location)}: {reason}")
        raise ConfigError(lines) from error


def _dotted(location: tuple[int | str, ...]) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    if location[:1] == ("link",) and parts[2:3] and location[2] in _LINKS:
        del parts[2]  # which of the kinds it was checked as
    # A mistake in a table's name itself is reported with pydantic's mark for keys.
    return "".join(parts).replace(".[key]", "").lstrip(".") or "the file"


def _reason(location: tuple[int | str, ...], kind: str, item: Any) -> str:
    if kind == "extra_forbidden":
        known = _keys_at(location[:-1])
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        return "unknown key" + (
            f"; did you mean {close[0]!r}?" if close else f"; known are: {', '.join(known)}"
        )
    message: str = item["msg"]
    message = message.removeprefix("Value error, ").replace("Input should be", "must be")
    message = message.replace("Input should have", "must have")
    given = item["input"]
    if isinstance(given, (str, int, float)) and not kind.startswith("missing"):
        message += f" (not {given!r:.80})"
    return message[0].lower() + message[1:].replace("\n", " ")


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    """Returns the legal keys of the table at this place."""
    here: Any = Config
    for part in location:
        if isinstance(here, type) and issubclass(here, BaseModel):
            here = here.model_fields[str(part)].annotation
        elif part in _LINKS:
            here = _LINKS[str(part)]
        else:  # a list or a dict: its items
            here = typing.get_args(here)[-1]
        while typing.get_origin(here) is Annotated:
            here = typing.get_args(here)[0]
    return list(here.model_fields) if issubclass(here, BaseModel) else []
