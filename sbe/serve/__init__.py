"""Linux as the remote: Python functions that a host calls, with its buffers.

handlers.py  what a handler may be, and how a request is answered with it
memory.py    how memory that the host names is reached: by descriptors, or in a window
life.py      one life of a remote: its session, areas and channels, until the host is gone
places.py    where hosts come to: a socket, a window of shared RAM
modules.py   the services of a Python module
service.py   one life after another, until it is stopped
"""
