"""Which run of this machine it is."""

import functools


@functools.cache
def boot_id() -> str:
    """Give what is new at each start of the machine, 32 hex digits and four dashes. Source: random(4), ``boot_id``."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
