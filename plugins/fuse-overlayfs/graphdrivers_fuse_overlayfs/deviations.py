"""What is known to be wrong with fuse-overlayfs, by version, as checks of the conformance suite that fail.

Each was found by that suite on version 1.10. Of later versions those are
believed to have it for which nobody has shown that they have not: the suite
fails where a declared deviation is none.
"""

import attrs

from graphdrivers.model import Deviation

_CODE = "https://github.com/containers/fuse-overlayfs/blob/v1.10/main.c"
_ISSUES = "https://github.com/containers/fuse-overlayfs"

CHECKED = (1, 10)
"""The newest version that the suite was run on."""


@attrs.frozen
class Flaw:
    """One thing that is wrong, and the checks that show it."""

    reason: str
    link: str
    checks: tuple[str, ...]
    unsafe: bool = False
    """Data is lost or comes back: whoever chooses the driver is told."""
    fixed: tuple[int, ...] | None = None
    """The first version without it, where there is one."""


FLAWS = (
    Flaw(
        "what is written to one name of a parent's hard-linked file is lost at the next mount",
        f"{_ISSUES}/pull/109",
        (
            "test_trees.py::test_hard_links_break_where_it_is_not_claimed",
            "test_mounted_trees.py::test_hard_linked_names_of_a_parent",
        ),
        unsafe=True,
    ),
    Flaw(
        "a file of a parent comes back after unlink, mkdir of the same name and rename of that directory",
        _CODE,
        ("test_mounted_trees.py::test_names_move[unlink, mkdir, rename]",),
        unsafe=True,
    ),
    Flaw(
        "fifos, sockets and devices of a parent cannot be changed (EIO, ENXIO), and become regular files when renamed",
        _CODE,
        (
            "test_agreement.py::test_random_stacks_are_the_same_everywhere[*]",
            "test_agreement.py::test_the_same_edits_give_the_same_bytes[*]",
            "test_diffs.py::test_a_diff_gives_the_layer_back",
            "test_diffs.py::test_a_diff_is_reproducible",
            "test_diffs.py::test_native_and_naive_diffs_agree[*]",
            "test_diffs.py::test_all_drivers_agree",
            "test_diffs.py::test_a_diff_can_be_closed_early",
            "test_diffs.py::test_a_diff_holds_no_marks_of_the_engine",
            "test_diffs.py::test_a_refused_tar_leaves_a_removable_layer",
            "test_diffs.py::test_changes_and_diff_tell_the_same",
            "test_diffs.py::test_random_stacks_round_trip",
            "test_mounted_files.py::test_a_parents_file_is_changed[chmod of a fifo]",
            "test_mounted_files.py::test_a_parents_file_is_changed[chmod of a socket]",
            "test_mounted_files.py::test_owners_are_changed",
            "test_mounted_files.py::test_times_are_set",
            "test_mounted_files.py::test_inodes_are_stable",
            "test_mounted_files.py::test_sockets_accept",
            "test_mounted_trees.py::test_names_move[a fifo]",
            "test_mounted_trees.py::test_names_are_linked[to a fifo]",
            "test_stateful.py::test_random_lives[*]",
            "test_trees.py::test_devices",
            "test_trees.py::test_random_edits[*]",
        ),
        unsafe=True,
    ),
    Flaw(
        "a copy-up changes the modification time of the directory that it is in",
        f"{_ISSUES}/issues/400",
        (
            "test_changes.py::test_what_was_touched_and_put_back_is_no_change",
            "test_fidelity.py::test_parents_in_a_diff",
            "test_mounted_files.py::test_a_copy_up_keeps_times",
            "test_mounted_files.py::test_a_write_moves_times",
            "test_roots.py::test_a_small_life_below_an_odd_root[*]",
            "test_stacks.py::test_echo_travels[0]",
            "test_stacks.py::test_echo_travels[4]",
            "test_stacks.py::test_echo_travels[9]",
            "test_stacks.py::test_a_directory_goes_and_comes_six_times",
            "test_stacks.py::test_attributes_through_a_stack",
            "test_stacks.py::test_links_through_a_stack",
            "test_stress.py::test_two_hundred_levels",
            "test_stress.py::test_five_thousand_names",
            "test_stress.py::test_a_storm_in_many_directories",
            "test_trees.py::test_a_file_rewritten_in_every_layer",
            "test_trees.py::test_a_directory_removed_and_made_again",
            "test_trees.py::test_a_directory_removed_in_one_layer_and_made_in_the_next",
            "test_trees.py::test_deleted_files",
            "test_trees.py::test_owners",
            "test_trees.py::test_files_move",
            "test_trees.py::test_new_directories_move_everywhere",
            "test_trees.py::test_odd_names[*]",
            "test_trees.py::test_times_are_kept",
            "test_trees.py::test_xattrs[*]",
            "test_trees.py::test_xattrs_of_directories",
        ),
    ),
    Flaw(
        "a copy-up loses the bits set-user-id, set-group-id and sticky",
        _CODE,
        (
            "test_owners.py::test_a_child_has_the_owners_of_its_parent",
            "test_trees.py::test_modes_of_directories_survive",
        ),
        unsafe=True,
    ),
    Flaw(
        "new files do not inherit the group of a set-group-id directory, nor a default ACL",
        _CODE,
        (
            "test_mounted_trees.py::test_a_group_is_inherited",
            "test_mounted_trees.py::test_a_default_acl_is_inherited",
        ),
    ),
    Flaw(
        "a copy-up fills holes, and lseek(2) finds none",
        _CODE,
        ("test_diffs.py::test_holes_take_no_room", "test_mounted_files.py::test_files_are_opened[holes]"),
    ),
    Flaw(
        "a file that is open and was unlinked has a name more than it should",
        f"{_ISSUES}/issues/192",
        ("test_mounted_files.py::test_files_are_opened[unlinked]",),
    ),
    Flaw(
        "a name that is too long is ENOENT, not ENAMETOOLONG",
        _CODE,
        ("test_mounted_files.py::test_files_are_opened[a name that is too long]",),
    ),
    Flaw(
        "names that mean deletions are refused, but with EINVAL",
        _CODE,
        (
            "test_crash.py::test_killed_while_settling",
            "test_trees.py::test_reserved_names_delete_nothing",
        ),
    ),
    Flaw(
        "mknod(2) of a character device 0:0 deletes the name, and fails with ENOENT",
        _CODE,
        ("test_capabilities.py::test_a_device_0_0_that_is_not_claimed_is_refused",),
    ),
)


def of(version: tuple[int, ...]) -> tuple[Flaw, ...]:
    """Give what is wrong with a version."""
    return tuple(flaw for flaw in FLAWS if flaw.fixed is None or version < flaw.fixed)


def known(version: tuple[int, ...]) -> tuple[Deviation, ...]:
    """Give the checks that a version fails."""
    return tuple(Deviation(check, flaw.reason, flaw.link) for flaw in of(version) for check in flaw.checks)


def warnings(version: tuple[int, ...]) -> tuple[str, ...]:
    """Tell people what a version does to their data."""
    unsafe = [f"known-unsafe: {flaw.reason}" for flaw in of(version) if flaw.unsafe]
    unsafe.append("known-unsafe: deleting a name of 252 bytes or more that a parent has ends the process of the mount")
    if version > CHECKED:
        unsafe.append(f"this version was not checked: it is taken for as wrong as {'.'.join(map(str, CHECKED))} is")
    return tuple(unsafe)
