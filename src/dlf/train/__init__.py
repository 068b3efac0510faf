"""Training: data, stages, loop, checkpoints."""
