"""A real Linux kernel as a user-space process: see README.md."""
