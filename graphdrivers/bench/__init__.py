"""Workloads, measuring and reports: the drivers of this machine side by side."""
