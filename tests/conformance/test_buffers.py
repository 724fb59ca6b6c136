"""Buffers: the shipped tests, for every transport of this project."""

from sbe.testing.conformance.test_buffers import *
