# SPDX-License-Identifier: Apache-2.0
"""What a kernel beside another one serves: the services of the conformance suite, in Python."""

from sbe.testing.conformance.services import PYTHON_SERVICES

SERVICES = PYTHON_SERVICES
