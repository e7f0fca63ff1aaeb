"""Tar in, tar out, whiteout dialects and the union rule."""
