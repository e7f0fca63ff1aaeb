"""Every attack that is known on tools of this kind: the cases that are made of it, or why it cannot concern us.

A row names a CVE, or a test of a peer, or a rule. Its cases are the corpus' own
(whose ``source`` is that row), images, or tests by name, of this folder or of that of images.
"""

import attrs

LAYERS = "test_hostile_layers.py::test_hostile_layer"
COMPRESSION = "test_hostile_compression.py::"
IMAGES = "test_hostile_images.py::"
STORE = "test_store_permissions.py::"
LIVES = "test_store_hostile_containers.py::test_life_of_a_container"
TARGETS = "test_store_hostile_containers.py::test_targets_that_are_links"
STRANGERS = "test_store_strangers.py::"
TAMPERING = "test_store_tampering.py::"
STORES = "test_store_resources.py::"
RESOURCES = "test_hostile_resources.py::"
TRUNCATION = "test_hostile_truncation.py::"
REDIRECTS = "../images/test_registry_redirects.py::"
DOCUMENTS = "../images/test_registry_documents.py::"
STREAMS = "../images/test_registry_streams.py::"

COPY = "copying into and out of running containers (docker cp, podman cp) is not part of this library"
RUNTIME = "a container runtime's: it mounts into the rootfs and starts programs there; nothing here does either"
BUILDER = "an image builder's: bind and cache mounts of build steps; nothing here builds"
KERNEL = (
    "the kernel's own permission checks, which no tar reaches; layers' private xattrs are escaped (see xattrs below)"
)


@attrs.frozen
class Row:
    """One attack."""

    what: str
    tests: tuple[str, ...] = ()
    """Tests besides the cases of which it is the source: ``FILE::TEST``."""
    reason: str = ""
    """Why it cannot concern us; then it needs no case."""


EXTRACTION = {
    "CVE-2007-4559": Row("tarfile: ``../x``, ``/abs``, a link written through"),
    "CVE-2014-6407": Row("docker: links escape while pulling"),
    "CVE-2014-9356": Row("docker: absolute links"),
    "CVE-2014-9357": Row("docker: xz of the image is run", (COMPRESSION + "test_no_program_is_run",)),
    "CVE-2014-9358": Row("docker: image IDs that are paths", (STORE + "test_names_make_no_paths",)),
    "CVE-2014-6408": Row("docker: security options in an image", (IMAGES + "test_labels_are_data",)),
    "CVE-2014-5277": Row(
        "docker: fallback to HTTP",
        (REDIRECTS + "test_no_plain_http_when_it_must_be_secure", REDIRECTS + "test_never_from_https_to_http"),
    ),
    "CVE-2014-8178": Row(
        "docker: layer IDs of strangers in the cache", reason="nothing is named by an ID that an image claims"
    ),
    "CVE-2014-8179": Row("docker: manifest checked after parsing", (IMAGES + "test_hostile_layout",)),
    "CVE-2015-3627": Row("docker: descriptor opened before chroot", reason=RUNTIME),
    "CVE-2015-3629": Row("docker: mount targets are links", (LIVES, TARGETS)),
    "CVE-2015-3630": Row("docker: writable /proc", reason=RUNTIME),
    "CVE-2015-3631": Row("docker: volumes over /proc", (LIVES,)),
    "CVE-2017-14992": Row("moby: bomb in memory", (COMPRESSION + "test_bomb",)),
    "CVE-2018-15664": Row("docker cp: race", reason=COPY),
    "CVE-2019-14271": Row(
        "docker cp: library loaded after chroot", (STORE + "test_nothing_leaks_to_programs_started_meanwhile",)
    ),
    "CVE-2019-10152": Row("podman cp: link", reason=COPY),
    "CVE-2019-18466": Row("podman cp: glob", reason=COPY),
    "CVE-2020-27534": Row("moby: predictable temporary path", (STORE + "test_no_temporary_folder_is_needed",)),
    "CVE-2021-29136": Row("umoci: the member ``.`` is a link"),
    "CVE-2021-32760": Row("containerd: chmod through a link"),
    "CVE-2021-41089": Row("moby: chmod of host files"),
    "CVE-2022-23648": Row(
        "containerd: volume paths of an image's configuration", (IMAGES + "test_labels_are_data", LIVES)
    ),
    "CVE-2024-9676": Row("containers-storage: image files that are links, huge or FIFOs", (LIVES,)),
    "CVE-2024-1753": Row("buildah: bind source through a link", reason=BUILDER),
    "CVE-2024-9407": Row("buildah: bind propagation", reason=BUILDER),
    "CVE-2024-9675": Row("buildah: cache mounts", reason=BUILDER),
    "CVE-2024-11218": Row("buildah: race in mounts", reason=BUILDER),
    "CVE-2024-23651": Row("buildkit: race in cache mounts", reason=BUILDER),
    "CVE-2024-23652": Row("buildkit: stubs deleted through a link", (STORE + "test_removing_follows_no_link",)),
    "CVE-2024-23653": Row("buildkit: entitlements", reason=BUILDER),
    "CVE-2024-21626": Row("runc: leaked descriptor", (STORE + "test_nothing_leaks_to_programs_started_meanwhile",)),
    "CVE-2024-0132": Row("nvidia: rootfs with linked mount targets", reason=RUNTIME),
    "CVE-2025-23359": Row("nvidia: the same again", reason=RUNTIME),
    "CVE-2025-31133": Row("runc: masked paths that are links", reason=RUNTIME),
    "CVE-2025-52565": Row("runc: /dev/console is a link", (LIVES,)),
    "CVE-2025-52881": Row("runc: writes to /proc redirected", (LIVES,)),
    "CVE-2026-41579": Row("runc: mount targets in the rootfs", reason=RUNTIME),
    "CVE-2025-47290": Row("containerd: a parent that was looked at becomes a link"),
    "CVE-2025-4517": Row(
        "CPython: ``..`` behind a chain longer than PATH_MAX; with it CVE-2025-4330, -4138, -4435, 2024-12718"
    ),
    "CPython gh-155999": Row("exit and come in again; with it gh-149486, gh-151558, gh-151987, gh-157190"),
    "CVE-2026-17106": Row("go-archive: CopyEscape"),
    "CVE-2026-41567": Row("moby: decompressor from PATH as root", (COMPRESSION + "test_no_program_is_run",)),
    "CVE-2026-41568": Row("docker cp: race while creating", reason=COPY),
    "CVE-2026-42306": Row("docker cp: mount(2) resolves its target again", (TARGETS,)),
    "CVE-2026-53489": Row("containerd: checkpoint archives", reason="checkpoints are not read"),
    "CVE-2026-50195": Row("containerd: tags poisoned", (TAMPERING + "test_nonsense_in_an_image",)),
    "CVE-2026-53488": Row("containerd: labels become commands", (IMAGES + "test_labels_are_data",)),
    "CVE-2026-53492": Row("containerd: annotations become options", (IMAGES + "test_labels_are_data",)),
    "CVE-2026-47262": Row("unbounded /etc/group of an image", (LIVES,)),
    "CVE-2026-61801": Row("unbounded /etc/group, again", (LIVES,)),
    "CVE-2026-46680": Row("numbers looked up as names"),
}

PARSING = {
    "CVE-2019-20907": Row("PAX length 0 loops"),
    "CVE-2025-8194": Row("negative numbers loop"),
    "CVE-2024-6232": Row("many extended headers take quadratic time"),
    "CVE-2025-58183": Row("Go: sparse maps without bound"),
    "CVE-2026-32288": Row("Go: old sparse maps without bound"),
    "CVE-2023-25153": Row("containerd: documents without bound"),
    "CVE-2020-1702": Row("containers-image: manifests without bound", (DOCUMENTS + "test_huge_manifest",)),
    "CVE-2021-20291": Row("containers-storage: deadlock on a damaged layer", (COMPRESSION + "test_cut_anywhere",)),
    "CVE-2021-21285": Row("moby: malformed digest crashes"),
    "rule: limits": Row("one limit each", (COMPRESSION + "test_bomb", STORES + "test_bombs")),
    "rule: depth of a stack": Row(
        "images of more layers than can be mounted", (STORES + "test_more_layers_than_can_be_mounted",)
    ),
    "rule: inodes per layer": Row("directories that nobody names", (RESOURCES + "test_more_directories_than_members",)),
    "rule: 40 links": Row("circles, and links that double", (RESOURCES + "test_links_that_double",)),
    "rule: depth": Row("100,000 directories", (RESOURCES + "test_a_hundred_thousand_directories",)),
    "rule: memory of paths": Row("deep paths that are kept whole", (RESOURCES + "test_deep_paths_over_a_parent",)),
    "rule: truncation": Row(
        "layers cut anywhere", (TRUNCATION + "test_cut_layer", TRUNCATION + "test_cut_names_the_member")
    ),
}

IMAGE_DOCUMENTS = {
    "CVE-2021-41190": Row(
        "layers and manifests in one document",
        (DOCUMENTS + "test_ambiguous_manifest", DOCUMENTS + "test_child_served_as_another_kind"),
    ),
    "CVE-2024-3727": Row("digests that are paths", (DOCUMENTS + "test_told_digest",)),
    "CVE-2024-24557": Row("cache keys too weak: configuration and layers have to agree"),
    "moby #44327": Row("pull by digest", (DOCUMENTS + "test_wrong_digest_of_a_manifest",)),
    "CVE-2020-15157": Row(
        "credentials to foreign addresses",
        (STREAMS + "test_addresses_in_descriptors_are_never_asked", REDIRECTS + "test_login_stays_at_home"),
    ),
    "CVE-2026-24054": Row("an image without layers", (IMAGES + "test_image_without_layers",)),
    "umoci hardening: descriptor size": Row("sizes that are wrong"),
    "umoci hardening: blob hash": Row("blobs that were replaced"),
    "rule: strict JSON": Row("what parsers differ in"),
    "rule: index nesting": Row("indexes in indexes", (IMAGES + "test_names_in_an_index_fan_out_once",)),
    "zstd:chunked": Row(
        "table of contents against tar", reason="tables of contents are skippable frames here and never read"
    ),
}

HOST = {
    "CVE-2021-41091": Row(
        "moby: others enter the store",
        (STORE + "test_nobody_else_reaches_anything", STRANGERS + "test_nobody_else_reaches_a_store"),
    ),
    "CVE-2021-41103": Row("containerd: others enter the store", (STORE + "test_nobody_else_reaches_anything",)),
    "CVE-2021-21284": Row("moby: remapped root owns the store", (STORE + "test_nobody_else_reaches_anything",)),
    "CVE-2024-25621": Row("containerd: modes of the store", (STORE + "test_nobody_else_reaches_anything",)),
    "umoci 0.4.0": Row("modes of the store", (STORE + "test_nobody_else_reaches_anything",)),
    "rule: roots of others": Row(
        "a store in a folder that somebody else made, or can write to",
        (
            STRANGERS + "test_a_root_of_somebody_else_is_refused",
            STRANGERS + "test_a_root_that_others_may_write_to_is_refused",
            STRANGERS + "test_a_part_that_somebody_else_made_is_refused",
        ),
    ),
    "rule: only our own mounts": Row(
        "records of mounts that are somebody else's",
        (
            TAMPERING + "test_a_row_about_the_mount_of_somebody_else",
            TAMPERING + "test_what_others_mount_in_our_place_is_theirs",
        ),
    ),
    "rule: records are believed within reason": Row(
        "ledgers that were changed by hand",
        (
            TAMPERING + "test_a_layer_with_the_name_of_a_path",
            TAMPERING + "test_a_circle_of_layers",
            TAMPERING + "test_nothing_reaches_the_terminal",
        ),
    ),
    "rule: removal": Row("links and mounts in what is deleted", (STORE + "test_removing_crosses_no_mount",)),
}

KERNEL_SIDE = {
    "peers set trusted.overlay.* from tars": Row("marks of overlayfs that come in a layer"),
    "overlay whiteouts in tars": Row("devices 0:0 that come in a layer"),
    "overlayfs lists it and cannot read it": Row("xattrs of overlay's prefix alone"),
    "CVE-2015-1328": Row("overlayfs in user namespaces", reason=KERNEL),
    "CVE-2015-8660": Row("overlayfs setattr", reason=KERNEL),
    "CVE-2016-1576": Row("overlayfs over FUSE", reason=KERNEL),
    "CVE-2021-3493": Row("file capabilities through a user namespace's overlay", reason=KERNEL),
    "CVE-2021-3847": Row("capabilities copied up from nosuid", reason=KERNEL),
    "CVE-2023-0386": Row("set-id copied up from FUSE", reason=KERNEL),
    "CVE-2023-2640": Row("Ubuntu's xattr checks", reason=KERNEL),
    "CVE-2023-32629": Row("Ubuntu's xattr checks, again", reason=KERNEL),
    "file system images": Row(
        "squashfs, erofs, ext4, zfs and btrfs streams", reason="no image of a file system is ever mounted or received"
    ),
}

CATALOGUE = {**EXTRACTION, **PARSING, **IMAGE_DOCUMENTS, **HOST, **KERNEL_SIDE}

PEERS = {
    "go-archive, containers-storage": (
        "UntarInvalidFilenames",
        "ApplyLayerInvalidHardlink",
        "ApplyLayerInvalidSymlink",
        "UntarParentTraversalContained",
        "UntarSiblingPrefixContained",
        "UntarAbsoluteHardlink",
        "UnpackRejectsRelativeEscapeBeforeAbsoluteSymlink",
        "UntarThroughAbsoluteSymlink",
        "HardlinkSourceThroughAbsoluteSymlink",
        "ImpliedDirectoryPermissions",
        "UnpackLayerCreatesImpliedDirectoriesThroughLowerLayerSymlink",
        "UntarParentPathPermissions",
        "UntarHardlinkToSymlink",
        "TarWithBlockCharFifo",
        "HandleTarTypeBlockCharFifoDeviceRange",
        "TarUntarWithXattr",
        "OverlayUntarInvalidWhiteoutNames",
        "NestedOverlayWhiteouts",
        "ApplyLayerWhiteouts",
        "UntarUstarGnuConflict",
        "PrefixHeaderReadable",
        "TypeXGlobalHeaderDoesNotFail",
        "XGlobalNoParent",
        "UntarEmptyArchive",
        "ApplyDotDotFile",
        "apply-junk",
    ),
    "containerd TestBreakouts": (
        "SymlinkAbsolute",
        "SymlinkUpAndOut",
        "SymlinkMultipleAbsolute",
        "SymlinkMultipleRelative",
        "SymlinkEmptyFile",
        "HardlinkRelative",
        "HardlinkDownAndOut",
        "HardlinkAbsolute",
        "HardlinkRelativeLong",
        "HardlinkRelativeUpAndOut",
        "HardlinkDirectRelative",
        "HardlinkDirectAbsolute",
        "SymlinkParentDirectory",
        "SymlinkEmptyFilename",
        "SymlinkParentRelative",
        "SymlinkSlashEnded",
        "SymlinkOverrideDirectory",
        "DirectoryOverrideSymlink",
        "DirectoryOverrideSymlinkAndHardlink",
        "WhiteoutRootParent",
        "WhiteoutParent",
        "WhiteoutRoot",
        "WhiteoutCurrentDirectory",
        "WhiteoutSymlink",
        "WhiteoutSymlinkPath",
        "WhiteoutDirectoryName",
        "WhiteoutDeadSymlinkParent",
        "WhiteoutRelativePath",
        "SymlinkOverridePath",
        "HardlinkSymlinkBeforeCreateTarget",
        "HardlinkSymlinkRelative",
        "HardlinkSymlinkAbsolute",
        "HardlinkSymlinkChmod",
    ),
    "continuity FSSuite": ("DirectoryReplace",),
    "umoci": (
        "UnpackEntrySanitiseScoping",
        "UnpackEntryNonDirParent",
        "UnpackEntryParentDir",
        "UnpackOpaqueWhiteout",
        "UnpackEntryMap",
        "umoci setuid",
    ),
}
"""Tests of the peers whose cases are in the corpus, each the source of at least one."""

RULES = (
    "rule: one name has one form",
    "rule: the root is a directory",
    "rule: every byte is a name",
    "rule: NUL in names",
    "rule: a name ends at NUL",
    "rule: duplicates",
    "rule: the last wins",
    "rule: hard links",
    "rule: links",
    "rule: links carry none",
    "rule: no magic links",
    "rule: lower layers only",
    "rule: only the name counts",
    "rule: skipped",
    "rule: no trace",
    "rule: order of work",
    "rule: a marker is never content",
    "rule: a lower source is copied up whole",
    "rule: nothing is written through",
    "rule: nothing shows through",
    "rule: owners",
    "rule: times",
    "rule: sizes",
    "rule: checksums",
    "rule: junk in octal",
    "rule: junk in PAX",
    "rule: unknown kinds",
    "rule: attributes",
    "rule: only permission bits",
    "rule: errors name the member",
    "rule: the end is the end",
    "rule: fields of other kinds",
    "rule: v7 directories",
    "rule: whiteouts",
    "decision: two readers",
)
"""What docs/decisions say of layers and of tars, and what holds for all of them."""
