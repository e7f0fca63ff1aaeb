"""System calls, file descriptors, mounts and locks: the only room that talks to the kernel directly."""
