"""Boards whose power this end holds: load, start, stop, reset, freeze, and what they crashed of."""

from sbe.boards.image import BOARDS, Board, check_image, find_image
from sbe.boards.qemu import QemuBoard

__all__ = ["BOARDS", "Board", "QemuBoard", "check_image", "find_image"]
