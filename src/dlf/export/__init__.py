"""From trained torch modules to a model bundle."""
