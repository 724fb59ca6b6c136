"""Boards whose power this end holds: load, start, stop, reset, freeze, and what they crashed of."""

from sbe.remotes.boards.image import BOARDS, Board, check_image, find_image
from sbe.remotes.boards.qemu import QemuBoard
from sbe.remotes.boards.resident import Resident

__all__ = ["BOARDS", "Board", "QemuBoard", "Resident", "check_image", "find_image"]
