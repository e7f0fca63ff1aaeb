"""OCI registries: images pulled from them and pushed to them, every byte verified on its way."""
