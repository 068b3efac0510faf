"""Between pixels and symbols: model bundles, backends, the one coding loop."""
