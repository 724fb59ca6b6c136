"""What Linux offers for buffers and remote processors, as typed calls of its own interfaces.

Only the standard library. Every structure names the kernel header it follows.
"""
