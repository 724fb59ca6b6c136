"""Plugins that all tests share."""

pytest_plugins = ["tests.rigs.kernel.plugin"]
