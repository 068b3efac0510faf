"""Codecs to compare: our own, common formats, published learned ones, and images decoded elsewhere."""
