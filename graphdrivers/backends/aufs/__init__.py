"""The aufs driver: layers on disk with ``.wh.`` files, mounted by whichever engine works."""
