"""The conformance suite: what every remote does, in tests that need only a link to it.

A test takes the fixture `connect`, which opens links, or `link`, which is one. sbe.testing.plugin
has them for a URI; this project's own tests have others for each of its transports, and the same
tests. A test says with `needs()` which services it calls and how much memory it takes.
"""
