"""A job's events on the terminal: a bar for each stage where there is a cursor to move, else a line for each."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from vitpress.values import JobEvent, JobState

A_LINE_EVERY = 0.1  # of a stage that trains, where there is no bar to draw


class Display(Protocol):
    """What shows the events of a job."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def show(self, event: JobEvent) -> None:
        """Show what the event changes."""
        ...


def watch(events: Iterable[JobEvent], console: Console) -> None:
    """Show ``events`` until they end."""
    with Bars(console) if console.is_terminal else Lines(console) as display:
        for event in events:
            display.show(event)


class Bars:
    """A bar for each stage, on a terminal."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[said]}"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._attempt = 1

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, event: JobEvent) -> None:
        if event.attempt > self._attempt:
            self._start_over(event.attempt)
        if event.state is JobState.QUEUED:
            self._bar("queued", total=None)
        elif event.state is JobState.CANCELLING:
            self._bar("cancelling", total=None)
        elif event.state is JobState.SUCCEEDED:
            self._finish_all()
        elif event.stage is not None:
            bar = self._bar(event.stage, total=1.0)
            self._progress.update(bar, completed=event.fraction or 0.0, said=said(event))

    def _bar(self, name: str, total: float | None) -> TaskID:
        """The bar of that name; a new one means that all before it are done."""
        if name not in self._tasks:
            self._finish_all()
            self._tasks[name] = self._progress.add_task(name, total=total, said="")
        return self._tasks[name]

    def _finish_all(self) -> None:
        for bar in self._tasks.values():
            self._progress.update(bar, total=1.0, completed=1.0, said="")

    def _start_over(self, attempt: int) -> None:
        for bar in self._tasks.values():
            self._progress.remove_task(bar)
        self._tasks.clear()
        self._attempt = attempt
        self._progress.refresh()  # what is printed appears above the bars as they were drawn last
        self._progress.console.print(f"attempt {attempt}: the one before was lost")


class Lines:
    """A line for each change, where there is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: tuple[int, str] | None = None
        self._told = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def show(self, event: JobEvent) -> None:
        running = event.state is JobState.RUNNING and event.stage is not None
        now = (event.attempt, f"{event.stage}" if running else str(event.state))
        if now != self._last:
            again = f" (attempt {event.attempt})" if event.attempt > 1 else ""
            self._console.print(f"{now[1]}{again}")
            self._last, self._told = now, 0.0
        fraction = event.fraction or 0.0
        if running and said(event) and fraction >= self._told + A_LINE_EVERY:
            self._console.print(f"{now[1]} {fraction:.0%}, {said(event)}")
            self._told = fraction


def said(event: JobEvent) -> str:
    """The loss and the time left, of a stage that trains: "loss 0.123, 4 min left". Empty for the others."""
    parts = [f"loss {event.loss:.3g}"] if event.loss is not None else []
    if event.eta_seconds is not None:
        parts.append(f"{_duration(event.eta_seconds)} left")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    """As precise as an estimate is: "48 s", "12 min", "3 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
