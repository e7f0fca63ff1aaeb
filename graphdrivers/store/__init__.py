"""The ledger: which layers, images and containers there are, who holds them, and what was half done."""
