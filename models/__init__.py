"""What a miner does: models, the worker that owns torch, and how answers are described."""
