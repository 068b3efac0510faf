"""The networks of the paper, in torch: one set of modules for every size."""
