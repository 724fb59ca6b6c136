"""The wire and the control protocol: every field's place, every number."""

from __future__ import annotations

from sbe import _native
from tests.unit.test_spec import header_constants, statuses

__all__ = ["lines"]


def lines() -> list[str]:
    """Structures with offset and size in bytes, constants, statuses."""
    fields = [
        f"{structure}.{field} {offset} {size}"
        for structure, members in _native.layout().items()
        for field, (offset, size) in members.items()
    ]
    numbers = {name: getattr(_native, name) for name in dir(_native) if name.isupper()}
    bindings = {
        name: value
        for name, value in numbers.items()
        if isinstance(value, int) and name.startswith(("CARVEOUT_", "TOKEN_", "MIRROR_"))
    }
    constants = [f"{name} = {value}" for name, value in (header_constants() | bindings).items()]
    return (
        sorted(fields)
        + sorted(constants)
        + [f"{name} = {value}" for name, value in sorted(statuses().items())]
    )
