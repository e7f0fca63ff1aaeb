"""A storage driver: layers as kernel overlayfs has them, merged by the program fuse-overlayfs."""
