"""The btrfs driver of graphdrivers: one subvolume per layer, one snapshot per child."""
