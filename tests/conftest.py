"""What holds for all tests, however they are started."""

import signal


def pytest_configure() -> None:
    """Let Ctrl-C mean what it means in a terminal.

    A shell starts background jobs with SIGINT ignored, which this process and all it starts would inherit.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
