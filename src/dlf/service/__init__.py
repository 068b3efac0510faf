"""The codec over HTTP: one process that answers, a few that encode and decode.

- `app`, `openapi`: what can be asked for, and how it is described.
- `bodies`, `parameters`, `guards`, `protocol`: what is taken from strangers, and how much of it.
- `pool`, `frames`: worker processes; one that hangs or dies is replaced.
- `worker`, `work`, `tasks`: what such a process does.

Nothing that a request holds is ever taken for the name of a file: the workers are given bytes and numbers.
"""
