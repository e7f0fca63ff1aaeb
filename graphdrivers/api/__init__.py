"""The Python door: one object for a store with its images and containers."""
