"""The conformance suite that every driver runs, ours and other people's.

::

    pytest -p graphdrivers.conformance.plugin --pyargs graphdrivers.conformance --graphdriver NAME

``observe`` is what a tree shows, ``workbench`` a driver with the oracle (a flat
directory) beside it, ``plugin`` the options and fixtures, ``test_*`` the checks;
trees are changed with `graphdrivers.edits`. A check asks for a capability
of the driver, never for its name.
"""
