# ruff: noqa: INP001 -- a folder of tests is no package
"""One line: the conformance suite belongs to these tests. ``pyproject.toml`` names the driver."""

pytest_plugins = ["graphdrivers.conformance.plugin"]
