"""Mutated inputs for everything that reads files; `cd tests && python -m fuzz --help`."""
