"""What a person sees while a command works: bars on standard error, and nothing where nobody looks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Display:
    """Bars for what is counted, and for what an engine runs at the moment.

    quiet: show nothing, and let nothing be reported but failures.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.shown = not quiet and sys.stderr is not None and sys.stderr.isatty()
        self._bars: Progress | None = None
        self._network: TaskID | None = None

    @contextmanager
    def counting(self, total: int) -> Iterator[Callable[[], None]]:
        """Show how many of `total` things are done; gives the function to say that one more is."""
        if not self.shown:
            yield lambda: None
            return
        from rich.console import Console  # loaded only where it is seen
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        )
        with bars:
            self._bars = bars
            whole = bars.add_task("total", total=total, visible=total > 1)
            yield lambda: bars.advance(whole)
        self._bars = self._network = None

    def network(self, label: str, share: float) -> None:
        """Show what an engine runs and how much of it is done, 0..1."""
        if self._bars is None:
            return
        if self._network is None or share == 0:
            self._end_network()
            self._network = self._bars.add_task(label, total=1.0)
        self._bars.update(self._network, completed=share, description=label)
        if share >= 1:
            self._end_network()

    def _end_network(self) -> None:
        if self._bars is not None and self._network is not None:
            self._bars.remove_task(self._network)
        self._network = None
