"""How good, at what size."""
