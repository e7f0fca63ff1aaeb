"""A storage driver for graphdrivers: each layer is a ZFS dataset, a child is the clone of its parent's snapshot."""
