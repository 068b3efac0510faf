"""Model bundles written: from trained torch modules, or from released checkpoints."""
