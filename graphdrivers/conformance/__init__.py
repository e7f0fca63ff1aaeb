"""The conformance suite that every driver runs, ours and other people's.

::

    pytest -p graphdrivers.conformance.plugin --pyargs graphdrivers.conformance --graphdriver NAME

``edits`` is the vocabulary of tree edits, ``observe`` what a tree shows,
``workbench`` a driver with the oracle (a flat directory) beside it, ``plugin``
the options and fixtures, ``test_*`` the checks. A check asks for a capability
of the driver, never for its name.
"""
