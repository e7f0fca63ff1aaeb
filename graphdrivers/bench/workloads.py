"""What is measured: ten workloads, each a value composed of steps."""

from graphdrivers.bench import acts, storms
from graphdrivers.bench.steps import (
    Step,
    at_once,
    create,
    diff,
    edit,
    in_order,
    in_turns,
    mount,
    remove,
    seal,
    unmount,
)
from graphdrivers.bench.workload import BYTES, Row, Workload

_THREADS = 4

_CONTAINER = (
    Step(create, "create"),
    Step(mount, "mount"),
    Step(edit(storms.short_container), "work"),
    Step(unmount, "unmount"),
    Step(diff, "diff"),
    Step(remove, "remove"),
)

UNPACK = Workload(
    name="unpack",
    title="unpack a real image",
    purpose="pulling images",
    models="A pull: the layers of the image are applied one over the other from tars on disk, digests included.",
    rows=(
        Row("apply", "unpack", "apply all layers"),
        Row("disk", "disk used", "what the layers take on disk", BYTES),
    ),
    headline="apply",
    ground=acts.nothing,
    act=acts.unpack,
)

BUILD = Workload(
    name="build",
    title="20 small build steps",
    purpose="building images",
    models="A Dockerfile of 20 lines over the image: for each a layer is created, mounted, changed, unmounted, read as "
    "a diff and sealed as the parent of the next.",
    rows=(
        Row("step", "a whole step", "one step from create to seal"),
        Row("start", "create, mount", "create a layer and mount it"),
        Row("edit", "edit", "the changes of one step in the mounted tree"),
        Row("diff", "diff", "read the diff of the step to its end"),
        Row("commit", "commit", "seal the layer"),
    ),
    headline="step",
    ground=acts.image,
    act=in_turns(
        [
            Step(in_order([Step(create), Step(mount)]), "start"),
            Step(edit(storms.build_step), "edit"),
            Step(unmount),
            Step(diff, "diff"),
            Step(seal, "commit"),
        ],
        20,
        row="step",
    ),
)

CI = Workload(
    name="ci",
    title="100 short containers",
    purpose="many short containers",
    models="A test farm: 100 containers from one image, each created, mounted, written to, unmounted, read as a diff "
    f"and removed; one after the other, then {_THREADS} at once.",
    rows=(
        Row("whole", "one by one", "one container from create to remove"),
        Row("parallel", f"{_THREADS} at once", f"the same per container, {_THREADS} at once"),
        Row("create", "create", "create its layer"),
        Row("mount", "mount", "mount it"),
        Row("work", "work", "a dozen small files"),
        Row("unmount", "unmount", "unmount it"),
        Row("diff", "diff", "read its diff to the end"),
        Row("remove", "remove", "remove its layer"),
    ),
    headline="whole",
    ground=acts.image,
    act=in_order(
        [
            Step(in_turns(_CONTAINER, 100, row="whole")),
            Step(at_once(_CONTAINER, 100, threads=_THREADS, row="parallel")),
        ]
    ),
)

SANDBOX = Workload(
    name="sandbox",
    title="fork, edit, roll back, 200 times",
    purpose="sandboxes that fork and roll back",
    models="Things are tried in a container that runs: its state is kept (by a live snapshot where the driver can, "
    "else it is unmounted, sealed and branched), it writes a few files, and is taken back to what was kept.",
    rows=(
        Row("turn", "a whole turn", "fork, edit and rollback"),
        Row("fork", "fork", "keep the state of the mounted layer"),
        Row("edit", "edit", "write a few files"),
        Row("rollback", "roll back", "drop that and mount the state that was kept"),
    ),
    headline="turn",
    ground=acts.image,
    act=in_turns(
        [
            Step(acts.fresh_sandbox),
            Step(
                in_order(
                    [
                        Step(acts.fork, "fork"),
                        Step(edit(storms.sandbox_step), "edit"),
                        Step(acts.rollback, "rollback"),
                    ]
                ),
                "turn",
            ),
        ],
        200,
    ),
)

DATABASE = Workload(
    name="database",
    title="a database in the image",
    purpose="databases",
    models="A database file that the image holds: the first write to it, then random writes of 4 KiB, each made "
    "durable (fsync), then all of it read in sequence; by fio where it is installed.",
    rows=(
        Row("copy-up", "first write", "change the first byte of the file"),
        Row("write", "4 KiB + fsync", "one random write, durable"),
        Row("read", "read all", "read the whole file, much of it in memory"),
    ),
    headline="write",
    ground=acts.database_file,
    act=in_order([Step(create), Step(mount), Step(acts.use_database), Step(unmount)]),
)

PACKAGES = Workload(
    name="packages",
    title="a package manager's storm",
    purpose="package managers",
    models=f"dpkg in a container: {storms.PACKAGES} packages of the image, {storms.PACKAGE_FILES} files each, are "
    "upgraded (new files beside the old ones, fsync, rename over them, the status file anew) and purged.",
    rows=(
        Row("upgrade", "upgrade a file", "replace one file of a package, durable"),
        Row("purge", "purge a file", "remove one file of a package"),
    ),
    headline="upgrade",
    ground=acts.installed,
    act=in_order(
        [
            Step(create),
            Step(mount),
            Step(in_turns([Step(acts.upgrade), Step(acts.purge)], storms.PACKAGES)),
            Step(unmount),
        ]
    ),
)

READ = Workload(
    name="read",
    title="read the whole tree",
    purpose="reading",
    models="Everything in the image is walked and read through a read-only view, with cold caches (the facts say "
    "how they are made cold) and once more, warm.",
    rows=(Row("cold", "cold", "walk and read, cold"), Row("warm", "warm", "walk and read again")),
    headline="warm",
    ground=acts.image,
    act=acts.read_cold_and_warm,
)

DEEP = Workload(
    name="deep",
    title="2 to 120 layers",
    purpose="deep stacks",
    models="Stacks of 2 to 120 layers with a file in each: a layer on top is created and mounted; each file is looked "
    "up for the first time, the directory is listed, each file is opened and read.",
    rows=tuple(
        Row(f"{what}-{depth}", f"{depth}: {what}", f"{meaning}, {depth} layers")
        for what, meaning in (
            ("mount", "create a layer and mount it"),
            ("stat", "stat one file for the first time"),
            ("readdir", "list the root"),
            ("open", "open, read and close one file"),
        )
        for depth in acts.DEPTHS
    ),
    headline=f"mount-{acts.DEPTHS[2]}",
    ground=acts.nothing,
    act=acts.go_deep,
)

DENSITY = Workload(
    name="density",
    title="many containers of one image",
    purpose="many containers at a time",
    models="1, 10 and 50 containers that run at a time and read the same files: what they take on disk beyond the "
    "image, and in the page cache.",
    rows=tuple(
        Row(f"{what}-{count}", f"{what}, {count}", f"{meaning}, {count} container{'s' * (count > 1)}", BYTES)
        for what, meaning in (("disk", "what is taken on disk"), ("memory", "page cache after reading the same files"))
        for count in acts.CONTAINERS
    ),
    headline=f"memory-{acts.CONTAINERS[1]}",
    ground=acts.shared_files,
    act=acts.crowd_together,
    once=True,
)

CLEANUP = Workload(
    name="cleanup",
    title="removal",
    purpose="cleaning up",
    models="A container that wrote many small files is removed, then a stack of three layers with as many each.",
    rows=(
        Row("container", "a container", "remove a layer with many small files"),
        Row("image", "an image", "remove a stack of three layers with many small files each"),
    ),
    headline="container",
    ground=acts.installed,
    act=in_order(
        [
            Step(create),
            Step(mount),
            Step(acts.write_many),
            Step(unmount),
            Step(remove, "container"),
            Step(acts.remove_image),
        ]
    ),
)

WORKLOADS = (UNPACK, BUILD, CI, SANDBOX, DATABASE, PACKAGES, READ, DEEP, DENSITY, CLEANUP)
"""Every workload, in the order of the report."""
