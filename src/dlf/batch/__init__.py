"""Very many pictures: from folders, tar shards and tables to the same, on all cores or on a Ray cluster.

One picture's way, whichever engine drives it::

    sources.items --> reader.Reader --> worker.Worker --> sink.Sink --> manifest
      what there is     its bytes         the codec        a part of the results, then its rows

A part counts when its rows are there; whatever has no rows is removed and made again.
"""

from dlf.batch.job import Job, Summary, run
from dlf.batch.worker import Task

__all__ = ["Job", "Summary", "Task", "run"]
