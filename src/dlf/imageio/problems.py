"""What is wrong with a file and does not keep its picture from being read."""

from __future__ import annotations

import logging

from dlf.errors import ImageError

log = logging.getLogger(__name__.rpartition(".")[0])


class Problems:
    """Sentences about one file.

    strict: refuse the file at the first of them.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self.sentences: list[str] = []

    def add(self, sentence: str) -> None:
        """Note a problem.

        Raises:
            ImageError: in strict reading.
        """
        if self._strict:
            raise ImageError(sentence)
        self.sentences.append(sentence)

    def warn(self) -> None:
        """Log what was noted."""
        for sentence in self.sentences:
            log.warning("%s", sentence)
