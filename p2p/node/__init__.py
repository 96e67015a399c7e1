"""The node: daemon, router, miner."""
