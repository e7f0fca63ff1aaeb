"""One run of ``graphdriver bench``: what was asked for, measured, as a document."""

import contextlib
import datetime as dt
import os
from collections.abc import Iterator, Mapping, Sequence

import attrs

from graphdrivers import errors, loading
from graphdrivers.bench import caches, cleaning, document, drivers, facts, runner, sample
from graphdrivers.bench.bed import Bed, Tar
from graphdrivers.bench.calls import Counter
from graphdrivers.bench.disturbance import Watch
from graphdrivers.bench.drivers import Given, Wanted
from graphdrivers.bench.instruments import Instruments
from graphdrivers.bench.results import Results
from graphdrivers.bench.sizes import Sizes
from graphdrivers.cli import output
from graphdrivers.cli.settings import Settings
from graphdrivers.images.opening import open_image


@attrs.define
class Run:
    """What was asked for, and what has come out so far."""

    plan: runner.Plan
    sizes: Sizes
    image: str | None
    """An OCI layout or docker archive; ``None`` for the sample."""
    wanted: Sequence[Wanted]
    results: Results = attrs.Factory(Results)
    tars: Sequence[Tar] = ()
    described: Sequence[Mapping[str, object]] = ()
    refused: Mapping[str, errors.GraphDriverError | OSError] = attrs.Factory(dict)
    facts: Mapping[str, object] = attrs.Factory(dict)
    instruments: Instruments | None = None
    complaints: Sequence[str] = ()
    cold: str = ""
    calls: bool = False
    """Whether system calls are to be counted too."""
    counter: Counter | None = None

    def measure(self, settings: Settings, parent: str) -> None:
        """Measure it all; also after Ctrl-C what there is can be shown.

        Args:
            settings: how loud.
            parent: where the image is unpacked.

        Raises:
            GraphDriverError, OSError: the image is none, or no driver works.
        """
        self.facts = facts.machine()
        self.instruments = Instruments.found()
        with contextlib.ExitStack() as stack:
            observe = stack.enter_context(_observing(settings))
            look = stack.enter_context(cleaning.interruptible())
            folder = stack.enter_context(cleaning.scratch(parent))
            if self.calls:
                self.counter = Counter.found(folder)
                if self.counter.reason:
                    text = f"graphdriver: note: system calls cannot be counted: {self.counter.reason}"
                    output.message(settings, text)
            self.tars = _tars(folder, self.image, self.sizes)
            given = Given(self.tars, self.sizes, self.instruments)
            beds, self.refused = stack.enter_context(drivers.beds(self.wanted, given))
            if not beds:
                raise next(iter(self.refused.values()))
            self.described = [document.described(bed) for bed in beds]
            self.cold = _cold(beds)
            watch = Watch()

            def observed(workload: str, driver: str, done: float) -> None:
                look()
                observe(workload, driver, done)

            try:
                plan = attrs.evolve(self.plan, counter=self.counter)
                runner.run(plan, runner.Course(beds, self.results, watch, observed))
            finally:
                self.complaints = watch.complaints()

    def document(self, epoch: int | None) -> dict[str, object]:
        """Give all of it as a document; ``epoch`` (seconds) takes the place of the time of day."""
        now = dt.datetime.now(dt.UTC) if epoch is None else dt.datetime.fromtimestamp(epoch, dt.UTC)
        return {
            "schema": document.SCHEMA,
            "kind": document.KIND,
            "complete": self.results.complete,
            "created": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "facts": dict(self.facts),
            "settings": self._settings(),
            "drivers": list(self.described),
            "refused": document.refusals(self.refused),
            "disturbed": list(self.complaints),
            "workloads": document.explained(self.results.workloads()),
            "results": [document.result(cell, counted=self.calls) for cell in self.results.cells],
        }

    def _settings(self) -> dict[str, object]:
        sizes = attrs.asdict(self.sizes)
        if sizes["patience"] == float("inf"):
            sizes["patience"] = None  # JSON has no infinity
        return {
            "image": self.image or "built-in sample",
            "layers": len(self.tars),
            "image_size": sum(tar.size for tar in self.tars),
            "sizes": sizes,
            "repeats": self.plan.repeats,
            "precision": self.plan.precision,
            "budget": self.plan.budget,
            "database": self.instruments.database.name if self.instruments else "",
            "memory": self.instruments.memory.name if self.instruments else "",
            "cold": self.cold,
            **({"calls": self._counted_by()} if self.calls else {}),
        }

    def _counted_by(self) -> str:
        if self.counter is None:
            return ""
        return self.counter.name or f"not at all: {self.counter.reason}"


def chosen(settings: Settings, names: str | None, places: Mapping[str, str], parent: str) -> list[Wanted]:
    """Choose the drivers: those named, else every one that is installed; each with its place and options.

    An option ``DRIVER.KEY=VALUE`` is for that driver, any other for all.
    """
    offered = list(dict.fromkeys(info.name for info in loading.list_drivers()))
    if names is not None:
        taken = list(dict.fromkeys(name for name in names.split(",") if name))
    else:
        taken = offered if settings.driver == loading.AUTO else [settings.driver]
    owners = {key: key.partition(".")[0] for key in settings.options if key.partition(".")[0] in {*offered, *taken}}
    wanted = []
    for name in taken:
        own = {key.partition(".")[2]: settings.options[key] for key, owner in owners.items() if owner == name}
        shared = {key: value for key, value in settings.options.items() if key not in owners}
        wanted.append(Wanted(name, places.get(name, parent), shared | own))
    return wanted


def _tars(folder: str, image: str | None, sizes: Sizes) -> list[Tar]:
    if image is None:
        image = sample.build_sample(os.path.join(folder, "sample"), size_max=sizes.image)
    with open_image(image) as opened:
        return drivers.unpacked(opened, folder)


def _cold(beds: Sequence[Bed]) -> str:
    """Say how caches are made cold here."""
    reasons = {bed.name: caches.kept_in_memory(bed.driver.home) for bed in beds}
    if all(reasons.values()):
        return "not at all: " + "; ".join(sorted(set(reasons.values())))
    return caches.how()


@contextlib.contextmanager
def _observing(settings: Settings) -> Iterator[runner.Observer]:
    """Show a bar with the time left on a terminal, and with -v a line when a workload begins."""
    announced: set[str] = set()
    with output.progress(settings, "preparing", 1000, as_bytes=False) as show:

        def observe(workload: str, driver: str, done: float) -> None:
            if workload not in announced:
                announced.add(workload)
                output.message(settings, f"measuring {workload}", level=1)
            show(int(done * 1000), f"{workload} on {driver}")

        yield observe
