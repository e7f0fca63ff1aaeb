"""Where the process begins: the console script and ``python -m graphdrivers`` come here."""

import gc
from typing import NoReturn

NEW_OBJECTS = 50_000
"""How many make the garbage collector look for cycles; importing a command makes more, and none of them goes."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as in `graphdrivers.cli.failures`, which is not loaded yet."""


def main() -> NoReturn:
    """Run the program with a garbage collector that leaves alone what is imported."""
    gc.set_threshold(NEW_OBJECTS)
    try:
        from graphdrivers.cli.main import main as run  # noqa: PLC0415 - the collector was to be told before

        run()
    except KeyboardInterrupt:  # while modules were imported; what comes later the program tells itself
        raise SystemExit(INTERRUPTED) from None
    finally:
        gc.freeze()  # the process ends: else the interpreter looks through all that is loaded, more than once
