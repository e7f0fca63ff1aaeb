# ruff: noqa: INP001, T201 -- run by its path; prints
"""Look, after a power cut, at what is left; print as JSON what is wrong.

power_check.py HOME_DISK SEED DONE METADATA
"""

import json
import os
import pathlib
import re
import subprocess
import sys

from graphdrivers_devicemapper import dm
from model import Model, Step, steps
from power_work import PLACE

from graphdrivers import errors, loading
from graphdrivers.driver import Driver
from graphdrivers.linux import mounts
from graphdrivers.model import Mount


def main() -> None:
    """Open the home as the next process does, compare, close, and look at the pool."""
    disk, seed, done, metadata = sys.argv[1:]
    os.mkdir(PLACE)
    mounts.attach((Mount("ext4", disk),), PLACE)
    home = pathlib.Path(PLACE, "home")
    model = Model()
    life = steps(int(seed))
    for _ in range(int(done)):
        model.take(next(life))
    driver = loading.load_driver("devicemapper", str(home))
    driver.settle()
    complaints = [*compared(driver, model, next(life))]
    driver.settle()
    driver.close()
    complaints += [f"{name} is left over" for name in dm.names()]
    complaints += [f"{name} is left in tmp" for name in os.listdir(home / "tmp")]
    complaints += pool(home, pathlib.Path(metadata.replace("HOME", str(home))))
    print(json.dumps(complaints))


def compared(driver: Driver, model: Model, under_way: Step) -> list[str]:
    """Say what is not as it was acknowledged; the step that was cut may have been taken, or not."""
    records = {record.name: record for record in driver.layers()}
    complaints = []
    for name, wanted in model.content.items():
        if name not in records:
            if (under_way.verb, under_way.layer) != ("remove", name):
                complaints.append(f"{name} is lost")
            continue
        if records[name].sealed != model.sealed[name] and (under_way.verb, under_way.layer) != ("seal", name):
            complaints.append(f"{name}: sealed is {records[name].sealed}")
        complaints += misread(driver, name, wanted)
    for name in sorted(set(records) - set(model.content)):
        if name != under_way.layer:
            complaints.append(f"{name} was removed, and is back")
        elif records[name].sealed and (found := unless_torn(driver, name)) is not None:
            after = Model(dict(model.content), dict(model.sealed))
            after.take(under_way)
            if found != after.content[name]:
                complaints.append(f"{name} was sealed, and is not whole")
        else:
            driver.remove(name)
    return complaints


def unless_torn(driver: Driver, layer: str) -> dict[str, bytes] | None:
    """Read a layer that was not acknowledged. Its record may have been cut; then it can only be removed."""
    try:
        return shown(driver, layer)
    except errors.StoreCorrupt:
        return None


def misread(driver: Driver, layer: str, wanted: dict[str, bytes]) -> list[str]:
    """Say how the content of a layer differs from what it should be."""
    try:
        return [] if shown(driver, layer) == wanted else [f"{layer} has other content"]
    except (OSError, errors.GraphDriverError) as error:
        return [f"{layer} is lost: {error}"]


def shown(driver: Driver, layer: str) -> dict[str, bytes]:
    """Read all files of a layer."""
    with mounts.opened(driver.mounts(layer, view=True)) as root:
        place = pathlib.Path(f"/proc/self/fd/{root}")
        return {path.name: path.read_bytes() for path in place.iterdir()}


def pool(home: pathlib.Path, metadata: pathlib.Path) -> list[str]:
    """Check the metadata of the stopped pool, and that it has just the devices that are recorded."""
    check = subprocess.run(["/usr/sbin/thin_check", metadata], check=False, capture_output=True, text=True)
    if check.returncode:
        return [f"thin_check: {check.stdout} {check.stderr}"]
    dump = subprocess.run(["/usr/sbin/thin_dump", metadata], check=True, capture_output=True, text=True).stdout
    found = {int(number) for number in re.findall(r'<device dev_id="(\d+)"', dump)}
    texts = [path.read_text().strip("\0") for path in home.glob("layers/*/device")]
    recorded = {json.loads(text)["number"] if text else -1 for text in texts} | {0}
    return [] if found == recorded else [f"the pool has devices {sorted(found)}, the folders {sorted(recorded)}"]


if __name__ == "__main__":
    main()
