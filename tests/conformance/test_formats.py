"""Formats of elements: the shipped tests, for every transport of this project."""

from sbe.testing.conformance.test_formats import *
