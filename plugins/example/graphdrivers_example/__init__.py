"""A storage driver for graphdrivers; `driver` has it."""
