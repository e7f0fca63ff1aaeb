"""The built-in storage drivers, loaded through the entry-point group ``graphdrivers.drivers``."""
