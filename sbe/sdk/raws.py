"""Raw messages: firmware that does not know this protocol, over a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbe.sdk.core import Core

if TYPE_CHECKING:
    from sbe.sdk.raw import Raw
    from sbe.sdk.raw_formats import ById, InOrder, Predicate

__all__ = ["Raws"]


class Raws:
    """A connection's endpoints of foreign firmware."""

    _core: Core

    def raw(self, endpoint: str, match: ById | InOrder | Predicate | None = None) -> Raw:
        """Opens an endpoint of firmware that has messages of its own; use it with `with`.

        `endpoint` is the name that the firmware announces on rpmsg. `match` says which message
        answers which call: `raw.ById`, `raw.InOrder`, or a predicate match(sent, came) -> bool.
        None: no message is an answer, `receive()` has them all.

        What the messages say is the application's risk: bytes that the firmware takes for an
        address are not checked. Through a daemon its policy says who may (PermissionDenied, which
        names the key). Raises LinkError for an endpoint that is not there, Error with code
        EOPNOTSUPP where there are none.
        """
        from sbe.sdk.raw import Raw

        return Raw(self._core, endpoint, match)
