"""The networks of a bundle in torch, for models too large for a graph file and for GPUs."""
