"""The layers of one image, several at a time: in this process, and in others beside it (`workers`).

A layer that is filled asks the ones below it little: it goes on until it needs
them, and waits then. They are begun, and acknowledged, lowest first.
"""

import contextlib
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import cast

import attrs

from graphdrivers import errors
from graphdrivers.driver import AppliesAhead
from graphdrivers.linux import locks
from graphdrivers.store import filling, making, workers
from graphdrivers.store.filling import Filled, Job
from graphdrivers.store.incoming import Wanted
from graphdrivers.store.ledger import Layer
from graphdrivers.store.making import Begun, Made
from graphdrivers.store.workers import Worker


class _Over(Exception):
    """Ends the work on a layer that is not needed any more."""


_ITS_OWN = (errors.GraphDriverError, OSError, MemoryError)
"""What is wrong with one layer, as opposed to somebody's wish to end it all."""


_PATIENCE = 0.2
"""Seconds between two questions whether a layer that another process makes is still needed."""


@attrs.define(eq=False)
class _Slot:
    """One layer on its way."""

    layer: Layer
    """As the one above it sees it."""
    begun: Begun | None
    """``None`` for one that another process has made."""
    scope: contextlib.ExitStack
    """Takes back, at its end, what was not acknowledged."""
    made: Made | None = None
    """Once it is filled and sealed here."""

    @property
    def is_filled(self) -> bool:
        """Whether those above it may look at it."""
        return self.begun is None or self.made is not None


class Parallel:
    """One import at work."""

    def __init__(self, wanted: Wanted, present: Sequence[Layer], stack: contextlib.ExitStack, *, others: int) -> None:
        """Start ``others`` beside this process, to make what stands on the layers that are ``present``.

        ``stack`` ends them, and takes back what was not acknowledged.
        """
        self._wanted = wanted
        self._picking = threading.Lock()
        self._changed = threading.Condition()
        # Guarded by it; what lies at the end and above is not needed any more:
        self._slots: list[_Slot] = []
        self._error: BaseException | None = None
        self._end = len(wanted.sources)
        self._first = len(present)
        self._below = present[-1] if present else None
        self._done: list[Layer] = []
        stack.callback(self._take_back)
        self._beside = stack.enter_context(workers.started(wanted.site.driver, others))
        # Threads that wait for a process each, and one that acknowledges.
        self._threads = stack.enter_context(ThreadPoolExecutor(others + 1, "graphdrivers-import"))

    def layers(self) -> list[Layer]:
        """Make the layers, and give them, lowest first."""
        lowest = self._begin_next()  # before others can: this process is ready at once
        running = [self._threads.submit(self._acknowledge)]
        running += [self._threads.submit(self._unpack, worker) for worker in self._beside]
        try:
            with contextlib.suppress(*_ITS_OWN):  # it is noted; layers below are waited for first
                self._unpack(None, lowest)
            wait(running)
        except BaseException as error:  # Ctrl-C, while it waits
            self._fail(error, 0)
            raise
        if self._error is not None:
            raise self._error
        return self._done

    def _unpack(self, worker: Worker | None, number: int | None = None) -> None:
        """Fill a layer that was begun, then one after the other, as long as there are any."""
        try:
            if worker is not None and worker.is_ready():
                number = self._begin_next()
            while number is not None:
                self._fill(number, worker)
                number = self._begin_next()
        except _Over:
            return
        except _ITS_OWN as error:
            self._fail(error, number or 0)  # what is below goes on, and stays
            raise
        except BaseException as error:
            self._fail(error, 0)
            raise

    def _begin_next(self) -> int | None:
        """Begin the lowest layer that nobody has begun; gives its number, or ``None`` when there is none."""
        with self._picking:
            while (number := self._first + len(self._slots)) < self._end:
                slot = self._begun(number)
                with self._changed:
                    self._slots.append(slot)
                    self._changed.notify_all()
                if slot.begun is not None:
                    return number
                self._wanted.told.found(number, slot.layer)
        return None

    def _begun(self, number: int) -> _Slot:
        """Find a layer that another process was faster with, or record that it is about to be made here."""
        wanted = self._wanted
        below = self._slots[-1].layer if self._slots else self._below
        with contextlib.ExitStack() as scope:
            scope.callback(self._locked(number).release)
            if (found := wanted.found(number)) is not None:
                return _Slot(found, None, contextlib.ExitStack())
            begun = scope.enter_context(making.intended(wanted.site, below))
            diff_id = wanted.sources[number].diff_id
            layer = Layer(begun.name, begun.below, wanted.chains[number], diff_id, 0, 0, 0, (), 0)
            return _Slot(layer, begun, scope.pop_all())

    def _locked(self, number: int) -> locks.FileLock:
        """Wait for who else makes the same stack; not for longer than the layer is needed: Ctrl-C ends that."""
        while number < self._end:
            lock = self._wanted.lock(number, timeout=_PATIENCE)
            with contextlib.suppress(errors.LockTimeout):
                lock.acquire()
                return lock
        raise _Over

    def _fill(self, number: int, worker: Worker | None) -> None:
        """Fill and seal a layer that was begun."""
        wanted, slot = self._wanted, self._slots[number - self._first]
        if slot.begun is None:
            raise AssertionError("a layer that is there is not filled")
        wanted.told.began(number)
        source, record = wanted.sources[number], wanted.site.record_path(slot.begun.name)
        job = Job(slot.begun.name, slot.begun.below, record, wanted.limits)
        if worker is None:
            filled = self._fill_here(number, job)
        else:
            filled = worker.fill(
                job,
                source.open,
                ready=lambda: self._await(number - 1),
                progress=lambda size: wanted.told.consumed(number, size),
                wanted=lambda: number < self._end,
            )
        made = making.filled(wanted.site, slot.begun, filled.applied, filled.tar_size, source.diff_id)
        with self._changed:
            slot.made = made
            self._changed.notify_all()

    def _fill_here(self, number: int, job: Job) -> Filled:
        driver = cast("AppliesAhead", self._wanted.site.driver)
        with self._wanted.opened(number) as plain:
            return filling.fill(
                driver,
                job,
                plain,
                ready=lambda: self._await(number - 1),
                progress=lambda size: self._consumed(number, size),
            )

    def _consumed(self, number: int, size: int) -> None:
        """Tell how far a layer is; one that is not needed any more ends here."""
        if number >= self._end:
            raise _Over
        self._wanted.told.consumed(number, size)

    def _acknowledge(self) -> None:
        """Make layers durable and record them as soon as they are filled, lowest first."""
        number = self._first
        try:
            for number in range(self._first, len(self._wanted.sources)):
                self._await(number)
                slot = self._slots[number - self._first]
                layer = slot.layer
                if slot.made is not None:
                    layer = making.acknowledge(self._wanted.site, slot.made, self._wanted.lease)
                    slot.scope.close()
                    self._wanted.told.done(number, layer)
                self._done.append(layer)
        except _Over:
            return
        except BaseException as error:
            self._fail(error, number)
            raise

    def _fail(self, error: BaseException, number: int) -> None:
        """Let a layer and all above it go; the first error is the one that is told."""
        with self._changed:
            self._error = self._error or error
            self._end = min(self._end, number)
            self._changed.notify_all()

    def _await(self, number: int) -> None:
        """Wait until a layer is filled; ends the work on the one above where it will not be."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_filled(number) or number >= self._end)
            if not self._is_filled(number):
                raise _Over

    def _is_filled(self, number: int) -> bool:
        index = number - self._first
        return index < 0 or (index < len(self._slots) and self._slots[index].is_filled)

    def _take_back(self) -> None:
        """Take back, top first, what was not acknowledged."""
        while self._slots:
            with contextlib.suppress(errors.GraphDriverError, OSError):  # recover tries again
                self._slots.pop().scope.close()
