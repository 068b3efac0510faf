"""The networks, in torch; one set of modules for every size."""
