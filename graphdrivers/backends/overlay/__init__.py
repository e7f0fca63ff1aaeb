"""The kernel overlayfs driver."""
