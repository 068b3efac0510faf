"""A second decoder of symbols, from docs/bitstream.md alone: integers of numpy and nothing else.

It shares with the codec the header and the shape arithmetic, and neither tables, range coder, networks nor
their runtime.
"""
