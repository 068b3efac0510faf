"""The command line: the only part of the package that prints.

Exit codes: 0 all done, 1 at least one input failed, 2 the command was wrong and nothing was done,
130 interrupted, 141 whoever read the output went away.
"""
