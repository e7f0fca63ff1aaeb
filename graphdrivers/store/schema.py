"""The tables of the ledger, and how an older ledger becomes a present one."""

VERSION = 3
"""Of the tables; kept in SQLite's ``user_version``."""

_FIRST = """
CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- State: 'making' from before the driver is asked until the layer is durable, 'ready',
-- 'removing' from the moment nothing may use it any more. Only a 'ready' one is shown.
CREATE TABLE layers (
    name TEXT PRIMARY KEY,
    parent TEXT REFERENCES layers (name),
    state TEXT NOT NULL CHECK (state IN ('making', 'ready', 'removing')),
    chain_id TEXT,
    diff_id TEXT,
    tar_size INTEGER,
    content_size INTEGER,
    entries INTEGER,
    notes TEXT NOT NULL DEFAULT '',
    created INTEGER NOT NULL,
    holder TEXT
) WITHOUT ROWID;
CREATE INDEX layers_of_parent ON layers (parent);
CREATE INDEX layers_unfinished ON layers (state) WHERE state != 'ready';
CREATE UNIQUE INDEX layers_of_chain ON layers (chain_id) WHERE state = 'ready' AND chain_id IS NOT NULL;

-- As which blobs a layer came here: spares transfers from and to places that have them.
CREATE TABLE blobs (
    digest TEXT NOT NULL,
    diff_id TEXT NOT NULL,
    size INTEGER NOT NULL,
    media_type TEXT NOT NULL,
    origin TEXT NOT NULL,
    PRIMARY KEY (diff_id, digest)
) WITHOUT ROWID;

CREATE TABLE images (
    image_id TEXT PRIMARY KEY,
    config BLOB NOT NULL,
    manifest BLOB,
    manifest_type TEXT NOT NULL DEFAULT '',
    manifest_digest TEXT,
    layer TEXT REFERENCES layers (name),
    created INTEGER NOT NULL,
    init_tar BLOB
) WITHOUT ROWID;
CREATE INDEX images_of_layer ON images (layer);
CREATE TABLE tags (
    reference TEXT PRIMARY KEY,
    image_id TEXT NOT NULL REFERENCES images (image_id)
) WITHOUT ROWID;
CREATE INDEX tags_of_image ON tags (image_id);

CREATE TABLE containers (
    container_id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    image_id TEXT REFERENCES images (image_id),
    init TEXT NOT NULL REFERENCES layers (name),
    layer TEXT NOT NULL REFERENCES layers (name),
    size INTEGER,
    touched INTEGER NOT NULL DEFAULT 0,
    ready INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX containers_of_image ON containers (image_id);
CREATE INDEX containers_of_init ON containers (init);
CREATE INDEX containers_of_layer ON containers (layer);
CREATE TABLE checkpoints (
    container_id TEXT NOT NULL REFERENCES containers (container_id),
    point TEXT NOT NULL,
    layer TEXT NOT NULL REFERENCES layers (name),
    created INTEGER NOT NULL,
    PRIMARY KEY (container_id, point)
) WITHOUT ROWID;
CREATE INDEX checkpoints_of_layer ON checkpoints (layer);

-- One row for each holder: a process, or nobody (until it is unmounted, or the machine restarts).
CREATE TABLE mounts (
    mount_id INTEGER PRIMARY KEY,
    layer TEXT NOT NULL REFERENCES layers (name),
    target TEXT NOT NULL,
    attached INTEGER NOT NULL,
    writable INTEGER NOT NULL,
    namespace TEXT NOT NULL,
    boot TEXT NOT NULL,
    holder TEXT
);
CREATE INDEX mounts_of_layer ON mounts (layer);

-- What an unfinished import or a higher tool needs for a while.
CREATE TABLE leases (
    lease TEXT NOT NULL,
    layer TEXT NOT NULL REFERENCES layers (name),
    expires INTEGER,
    holder TEXT,
    PRIMARY KEY (lease, layer)
) WITHOUT ROWID;
CREATE INDEX leases_of_layer ON leases (layer);
"""

_INIT_LAYERS = """
-- The init layer that containers of the image share, where the driver makes children without copies.
ALTER TABLE images ADD COLUMN init TEXT REFERENCES layers (name);
CREATE INDEX images_of_init ON images (init);
"""

_REPAIRS = """
-- Layers that are being made anew: from the moment a whole one, in state 'making' and durable, stands in for each.
-- A row whose layer is not there any more means nothing, and goes with the other one.
CREATE TABLE repairs (
    layer TEXT PRIMARY KEY,
    substitute TEXT NOT NULL UNIQUE REFERENCES layers (name)
) WITHOUT ROWID;
"""

_FOUND_BY = """
-- What images and mounts are looked up by, too.
CREATE INDEX images_of_manifest ON images (manifest_digest);
CREATE INDEX mounts_of_target ON mounts (target);
"""

MIGRATIONS = (_FIRST, _INIT_LAYERS, _REPAIRS + _FOUND_BY)
"""The script that brings a ledger of version N to N + 1, at N."""
