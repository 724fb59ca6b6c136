"""The services: the shipped tests, for every transport of this project."""

from sbe.testing.conformance.test_services import *
