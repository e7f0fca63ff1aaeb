"""The worker threads: in order, bounded, and honest about errors."""

import faulthandler
import threading
from collections.abc import Iterator

import pytest

from graphdrivers.archive.pipeline import Pump, ReadAhead


@pytest.fixture(autouse=True)
def no_deadlock() -> Iterator[None]:
    """End the whole run with a traceback, should a thread ever hang."""
    faulthandler.dump_traceback_later(60, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def test_pump_keeps_the_order() -> None:
    """All items are consumed, in order, in one other thread, before `close` returns."""
    seen: list[int] = []
    names: set[str] = set()

    def consume(item: int) -> None:
        seen.append(item)
        names.add(threading.current_thread().name)

    pump = Pump(consume, depth=3)
    for number in range(100):
        pump.put(number)
    pump.close()
    pump.close()

    assert seen == list(range(100))
    assert len(names) == 1
    assert threading.current_thread().name not in names
    assert not names & {thread.name for thread in threading.enumerate()}


def test_pump_stops_at_an_error() -> None:
    """The error comes out of a later call, and nothing behind the item that caused it is consumed."""
    seen: list[int] = []

    def consume(item: int) -> None:
        if item == 3:
            raise OSError(28, "No space left on device")
        seen.append(item)

    def fill(pump: Pump[int]) -> None:
        for number in range(100):
            pump.put(number)

    pump = Pump(consume, depth=2)
    with pytest.raises(OSError, match="No space"):
        fill(pump)
    pump.abort()
    late = Pump(consume)
    late.put(3)
    late.put(4)
    with pytest.raises(OSError, match="No space"):
        late.close()

    assert seen == [0, 1, 2]


def test_pump_is_bounded_and_aborts() -> None:
    """`put` blocks while `depth` items wait; `abort` drops them and ends the thread."""
    gate, full = threading.Event(), threading.Event()
    seen: list[int] = []

    def consume(item: int) -> None:
        gate.wait()
        seen.append(item)

    pump = Pump(consume, depth=2)

    def fill() -> None:
        pump.put(1)
        pump.put(2)
        full.set()
        pump.put(3)
        full.clear()

    filler = threading.Thread(target=fill)
    filler.start()
    full.wait()
    assert filler.is_alive()
    gate.set()
    filler.join()
    pump.abort()
    pump.abort()

    assert seen in ([1], [1, 2], [1, 2, 3])


def test_read_ahead_is_bounded() -> None:
    """No more than ``depth`` chunks are made before they are asked for."""
    made: list[int] = []

    def chunks() -> Iterator[bytes]:
        for number in range(20):
            made.append(number)
            yield b"%d" % number

    ahead = ReadAhead(chunks(), depth=3)
    assert made == []
    assert ahead.next_chunk() == b"0"
    assert len(made) <= 3
    assert [ahead.next_chunk() for _ in range(20)] == [b"%d" % number for number in range(1, 20)] + [b""]
    assert ahead.next_chunk() == b""
    ahead.close()
    ahead.close()


def test_read_ahead_gives_what_precedes_an_error() -> None:
    """An error takes its place behind the chunks before it."""

    def chunks() -> Iterator[bytes]:
        yield b"good"
        raise OSError(5, "Input/output error")

    ahead = ReadAhead(chunks())
    assert ahead.next_chunk() == b"good"
    with pytest.raises(OSError, match="Input/output"):
        ahead.next_chunk()
    ahead.close()
