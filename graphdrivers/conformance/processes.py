"""Work in forked processes: several that begin at once, or one that is killed at a chosen step."""

import contextlib
import functools
import itertools
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

_WATCHED = ("open", "os.", "shutil.", "tempfile.")
"""Prefixes of the audit events (PEP 578) that are about files."""


def at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Run the same work in processes that begin together; give what each returned, which JSON must be able to say.

    Raises:
        AssertionError: one of them failed; its traceback is on standard error.
    """
    waiting, go = os.pipe()
    readers = []
    children = []
    for number in range(count):
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(go)
            os.read(waiting, 1)  # until the parent, the last one to hold the other end, closes it
            _end_with(functools.partial(work, number), writer)
        os.close(writer)
        readers.append(reader)
        children.append(child)
    os.close(waiting)
    os.close(go)
    texts = [_read_all(reader) for reader in readers]
    statuses = [os.waitpid(child, 0)[1] for child in children]
    assert statuses == [0] * count, "a process failed; standard error has its traceback"
    return [json.loads(text) for text in texts]


def steps_of(prepare: Callable[[], Callable[[], object]]) -> int:
    """Count the calls about files that some work makes, in a process of its own.

    Args:
        prepare: called first, uncounted; returns the work.
    """

    def counted() -> int:
        work = prepare()
        steps = itertools.count()
        sys.addaudithook(lambda event, _: event.startswith(_WATCHED) and next(steps) < 0)
        work()
        return next(steps)

    (count,) = at_once(1, lambda _: counted())
    return int(count)


def killed_at(step: int, prepare: Callable[[], Callable[[], object]]) -> bool:
    """Run work in a process that is killed just before one of its calls about files; say whether it came that far."""
    child = os.fork()
    if not child:

        def doomed() -> None:
            work = prepare()
            steps = itertools.count()

            def watch(event: str, _: tuple[object, ...]) -> None:
                if event.startswith(_WATCHED) and next(steps) == step:
                    os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(watch)
            work()

        _end_with(doomed, None)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    assert status == 0, "the process failed instead of being killed; standard error has its traceback"
    return False


def some_of(steps: int, most: int) -> Iterator[int]:
    """Give at most ``most`` step numbers spread over all, the first and the last among them."""
    if steps <= most:
        yield from range(steps)
    else:
        yield from sorted({round(number * (steps - 1) / (most - 1)) for number in range(most)})


def _end_with(work: Callable[[], Any], writer: int | None) -> NoReturn:
    """Do the work of a forked process, tell its result, and go no further into the parent's program."""
    try:
        result = json.dumps(work())
        if writer is not None:
            with os.fdopen(writer, "w", encoding="ascii") as file:
                file.write(result)
    except BaseException:  # noqa: BLE001 - a forked process must not go on
        with contextlib.suppress(OSError):
            os.write(2, traceback.format_exc().encode())
        os._exit(1)
    os._exit(0)


def _read_all(reader: int) -> str:
    with os.fdopen(reader, encoding="ascii") as file:
        return file.read()
