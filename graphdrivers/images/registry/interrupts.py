"""What a signal ends, ends at once: threads that wait for a registry are not waited for.

A program that is interrupted leaves by an exception in its main thread, and
that waits for the threads which read ahead, or send. Those may wait for a
silent network for minutes, and know nothing of the exception.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def ending(abort: Callable[[], None]) -> Iterator[None]:
    """Call ``abort`` where a signal's handler raises during the block (Ctrl-C), before the exception goes its way.

    Handlers are Python's or the program's own, and do what they did before; a
    signal without one is left alone. Does nothing in other threads than the
    main one, for only that one has handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: handler for number in _SIGNALS if callable(handler := signal.getsignal(number))}

    def handle(number: int, frame: object) -> None:
        try:
            before[signal.Signals(number)](number, frame)  # type: ignore[arg-type] # a frame, as it came
        except BaseException:
            abort()
            raise

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
