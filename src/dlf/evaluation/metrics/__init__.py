"""Metrics: of one image against its original, and of sets of images."""
