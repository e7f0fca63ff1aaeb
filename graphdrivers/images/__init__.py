"""Images as lists of verified layer streams."""
