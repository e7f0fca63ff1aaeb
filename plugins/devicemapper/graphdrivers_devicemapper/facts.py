"""What people may be told about a pool and its devices."""

from collections.abc import Mapping

from graphdrivers import errors
from graphdrivers_devicemapper import dm
from graphdrivers_devicemapper.devices import Devices
from graphdrivers_devicemapper.pool import BLOCK, SECTOR, Pool

_METADATA_BLOCK = 4096


def of_pool(pool: Pool) -> Mapping[str, str]:
    """Give how full the pool is, and in what state; it is started for that. The lock is held."""
    settings = pool.settings
    found = {
        "pool": pool.name,
        "data": settings.data or "a file in the home, on a loop device",
        "metadata": settings.metadata or "a file in the home, on a loop device",
        "file system": f"{settings.fs}, {settings.size >> 20} MiB",
    }
    if not pool.is_begun():
        return found | {"state": "not made yet"}
    try:
        pool.started()
        usage = pool.usage(exact=True)
    except errors.StoreCorrupt as error:
        return found | {"state": error.reason}
    return found | {
        "state": f"{usage.mode}{', needs check' if usage.needs_check else ''}",
        "data used": _share(usage.used_data, usage.total_data, BLOCK, usage.data_percent),
        "metadata used": _share(usage.used_metadata, usage.total_metadata, _METADATA_BLOCK, usage.metadata_percent),
        "transaction": str(usage.transaction),
    }


def of_layer(pool: Pool, devices: Devices, number: int) -> Mapping[str, str]:
    """Give a layer's device, and while it is active how much of it is mapped, parents' blocks included."""
    found = {"pool": pool.name, "device": str(number)}
    active = devices.find(number)
    if active is None:
        return found
    mapped = dm.table_status(active.name, exact=False).split()[0]
    shown = f"{int(mapped) * SECTOR >> 10} KiB" if mapped.isdecimal() else mapped
    return found | {"node": dm.node(active), "mapped": shown, "open": str(active.open_count)}


def _share(used: int, total: int, unit: int, percent: float) -> str:
    return f"{used * unit >> 20} of {total * unit >> 20} MiB ({percent:.1f} %)"
