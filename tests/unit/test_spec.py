"""The tables of docs/spec are what the code says: every field, constant and status, and no other.

A structure is a heading like "### `sbe_ping` (24 bytes)" and the table beneath it. A constant is a
row of a table that begins with the columns "value" and "name".
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sbe import _native

ROOT = Path(__file__).resolve().parents[2]
SPEC = ROOT / "docs" / "spec"
CORE = ROOT / "firmware" / "core"
DOCUMENTS = ["wire.md", "control.md", "streams.md"]
HEADERS = [CORE / "wire.h", ROOT / "firmware" / "streams" / "layout.h"]

HEADER_SIZE = 16  # struct sbe_control, which control messages begin with
WITHOUT_HEADER = {"sbe_control", "sbe_limits", "sbe_segment"}

Field = tuple[int, int, str]


def cells(line: str) -> list[str]:
    return [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]


def tables(text: str) -> Iterator[tuple[str, list[list[str]]]]:
    """Yield each table with the last heading above it, the row of column names first."""
    heading, rows = "", []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            rows.append(cells(line))
            continue
        if rows:
            yield heading, [rows[0], *rows[2:]]
            rows = []
        if line.startswith("#"):
            heading = line


def documented_structures(name: str) -> dict[str, tuple[int, list[Field]]]:
    """Size and fields by structure, as a document has them."""
    found: dict[str, tuple[int, list[Field]]] = {}
    for heading, (columns, *rows) in tables((SPEC / name).read_text()):
        match = re.fullmatch(r"#+ `(sbe_\w+)` \((\d+) bytes\)", heading)
        if match is None or columns[:3] != ["offset", "size", "field"]:
            continue
        assert match[1] not in found, f"{name}: {match[1]} is described twice"
        fields = [(int(offset), int(size), field) for offset, size, field, *_ in rows]
        found[match[1]] = (int(match[2]), fields)
    return found


def documented_constants(name: str) -> list[tuple[str, int]]:
    return [
        (row[1], int(row[0], 0))
        for _, (columns, *rows) in tables((SPEC / name).read_text())
        if columns[:2] == ["value", "name"]
        for row in rows
    ]


def all_structures() -> dict[str, tuple[int, list[Field]]]:
    found: dict[str, tuple[int, list[Field]]] = {}
    for name in DOCUMENTS:
        found |= documented_structures(name)
    return found


def all_constants() -> list[tuple[str, int]]:
    return [constant for name in DOCUMENTS for constant in documented_constants(name)]


def header_text() -> str:
    return "\n".join(path.read_text() for path in HEADERS)


def header_constants() -> dict[str, int]:
    """The wire's numbers, as its headers have them; a mask of flags is no constant of its own."""
    text = header_text()
    defined = re.findall(r"#define SBE_(\w+)\s+(0x[0-9a-f]+|\d+)u", text)
    members = re.findall(r"^\s*SBE_(\w+) = (\d+)", text, re.M)
    return {name: int(value, 0) for name, value in defined + members if name != "AREA_FLAGS"}


def extension_constants() -> dict[str, int]:
    values = {name: getattr(_native, name) for name in dir(_native) if name.isupper()}
    # The bindings' stand in docs/spec/carveout.md and rpmsg.md, without tables of constants; those
    # of ASG are another protocol's, places in memory are this end's, a header's size is of a table.
    elsewhere = ("CARVEOUT_", "TOKEN_", "MIRROR_", "ASG_", "MEMORY_", "FRAME_HEADER_SIZE")
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, int) and not name.startswith(elsewhere)
    }


def statuses() -> dict[str, int]:
    text = (CORE / "status.h").read_text()
    return {name: int(value) for name, value in re.findall(r"SBE_(\w+) = (-?\d+)", text)}


def test_the_extension_tells_of_every_field():
    asserted = re.findall(r"^SBE_AT\((\w+), (\w+), (\d+)\)", header_text(), re.M)
    told = {
        (structure, field, offset)
        for structure, fields in _native.layout().items()
        for field, (offset, _) in fields.items()
    }
    assert told == {(structure, field, int(offset)) for structure, field, offset in asserted}


def test_every_structure_is_described():
    assert set(all_structures()) == set(_native.layout())


@pytest.mark.parametrize("structure", sorted(_native.layout()))
def test_fields_are_those_of_the_code(structure: str):
    _, fields = all_structures()[structure]
    expected = [
        (offset, size, name) for name, (offset, size) in _native.layout()[structure].items()
    ]
    assert fields == sorted(expected)


@pytest.mark.parametrize("structure", sorted(_native.layout()))
def test_sizes_and_offsets_leave_no_hole(structure: str):
    size, fields = all_structures()[structure]
    is_message = structure in documented_structures("control.md") and (
        structure not in WITHOUT_HEADER
    )
    end = HEADER_SIZE if is_message else 0
    for offset, length, name in fields:
        assert offset == end, f"{structure}.{name}"
        end += length
    assert end == size
    told = re.search(rf"^SBE_SIZE\({structure}, (\d+)\)", header_text(), re.M)
    assert told is None or int(told[1]) == size


def test_constants_are_those_of_the_code():
    documented = all_constants()
    names = [name for name, _ in documented]
    assert len(names) == len(set(names)), "a constant is documented twice"
    expected = header_constants() | extension_constants() | statuses()
    machine = {"BUFFERS_MAX"}  # each implementation's own
    assert dict(documented) == {k: v for k, v in expected.items() if k not in machine}


def test_header_and_extension_agree():
    ours, theirs = header_constants(), extension_constants()
    assert {name: ours[name] for name in ours.keys() & theirs.keys()} == {
        name: theirs[name] for name in ours.keys() & theirs.keys()
    }


def test_lengths_of_messages():
    """The table of messages: names of structures, and their lengths."""
    [rows] = [
        rows
        for _, (columns, *rows) in tables((SPEC / "control.md").read_text())
        if columns[2:4] == ["request", "bytes"]
    ]
    structures = all_structures()
    for _, name, request, request_size, reply, reply_size in rows:
        assert structures[request][0] == int(request_size.split()[0]), name
        if reply != "none":
            assert structures[reply][0] == int(reply_size), name
    fixed, each = structures["sbe_area_map"][0], structures["sbe_segment"][0]
    assert (_native.CONTROL_MAX - fixed) // each == _native.SEGMENTS_MAX


def test_lengths_of_frames():
    text = (SPEC / "wire.md").read_text()
    for structure in ("sbe_wire_frame", "sbe_wire_buffer"):
        size = all_structures()[structure][0]
        assert re.search(rf"^\| \w+ \| .*{size}, `{structure}`", text, re.M), structure


def words(cell: str) -> list[str]:
    """Names in a cell: `slots`? is an optional parameter."""
    return [word.strip().replace("`", "") for word in cell.split(",") if word.strip()]


def parameters(declaration: str) -> list[str]:
    """The names in "size: int, heap: ?string" are size and heap?."""
    return [name + optional for name, optional in re.findall(r"(\w+): (\??)", declaration)]


def test_the_daemons_methods():
    """The table of methods is what the daemon offers to introspection."""
    from sbe.daemon import service

    interface = service.ControlInterface.render_interface_description()
    offered = {
        name: (parameters(given), parameters(answer))
        for name, given, answer in re.findall(
            r"^method (\w+)\((.*)\) -> \((.*)\)$", interface, re.M
        )
    }
    [rows] = [
        rows
        for _, (columns, *rows) in tables((SPEC / "control.md").read_text())
        if columns == ["method", "parameters", "reply"]
    ]
    assert {name: (words(given), words(answer)) for name, given, answer in rows} == offered
