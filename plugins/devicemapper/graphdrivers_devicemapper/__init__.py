"""Layers as thin devices of the kernel's device mapper; `graphdrivers_devicemapper.driver` has the driver."""
