"""Drivers that break the contract in one way each; the conformance suite has to catch every one.

A module here is named like a file of the suite: ``trees`` belongs to
``graphdrivers/conformance/test_trees.py``. Its ``CAUGHT_BY`` names for each
driver, a working one with one flaw put in front of it, the checks of that file
that must fail, as ``function`` (with one of its parameters at least) or, to run
a slow check only once, as ``function[parameter]``. The suite itself is not told.
A driver that checks of several files catch is named in the ``CAUGHT_BY`` of
each. Modules without a ``CAUGHT_BY`` hold what others share. `discovery` finds
all of it.
"""
