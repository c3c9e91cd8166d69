"""What the person sees: steps with a spinner while they run, and the table at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

State = Literal["runs", "done", "failed"]
MARKS: dict[State, Text] = {
    "done": Text("✓", style="green"),
    "failed": Text("✗", style="red"),
}
NO_TERMINAL_WIDTH = 100


def new_console() -> Console:
    """A console that leaves numbers and paths uncoloured, and is wide enough in a log."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=NO_TERMINAL_WIDTH)
    return console


@dataclass(slots=True)
class Step:
    """One line of a checklist. The clock is ours until the one who did it says better."""

    title: str
    name: str = ""
    note: str = ""
    state: State = "runs"
    began: float = field(default_factory=time.monotonic)
    seconds: float | None = None
    spinner: Spinner = field(default_factory=lambda: Spinner("dots", style="cyan"))

    def end(self, state: State, seconds: float | None = None) -> None:
        self.state = state
        self.seconds = time.monotonic() - self.began if seconds is None else seconds

    @property
    def shown_seconds(self) -> str:
        seconds = time.monotonic() - self.began if self.seconds is None else self.seconds
        return f"{seconds:.1f} s" if seconds >= 0.05 else ""


class Checklist:
    """Steps in the order in which they began, some side by side; redrawn while they run."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.footer: RenderableType = ""

    def begin(self, title: str, name: str = "") -> Step:
        self.steps.append(Step(title, name))
        return self.steps[-1]

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """One step, done when the block ends."""
        step = self.begin(title)
        try:
            yield step
        except BaseException:
            step.end("failed")
            raise
        step.end("done")

    def stop(self) -> None:
        """No spinner may outlive the view: what still runs has been cut off."""
        for step in self.steps:
            if step.state == "runs":
                step.end("failed")

    def __rich__(self) -> RenderableType:
        named = any(step.name for step in self.steps)
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(width=1)
        if named:
            table.add_column(no_wrap=True, style="bold")
        table.add_column(ratio=1, overflow="fold")
        table.add_column(justify="right", no_wrap=True, style="dim")
        for step in self.steps:
            mark = MARKS.get(step.state, step.spinner)
            title = Text.assemble(step.title, (f"  {step.note}" if step.note else "", "dim"))
            names = [step.name] if named else []
            table.add_row(mark, *names, title, step.shown_seconds)
        return Padding(Group(table, self.footer) if self.footer else table, (0, 2))


@contextmanager
def live(console: Console, checklist: Checklist) -> Iterator[None]:
    """The checklist, redrawn until the block ends, and left standing then."""
    try:
        with Live(checklist, console=console, refresh_per_second=10):
            try:
                yield
            finally:
                checklist.stop()
    finally:
        if not console.is_terminal:
            # In a log it is written once, at its end, and rich leaves the line open there.
            console.print()


def heading(console: Console, title: str, *lines: str) -> None:
    console.print()
    console.rule(Text(title, style="bold"), align="left", style="dim")
    for line in lines:
        said(console, line)
    console.print()


def said(console: Console, text: str, *, style: str = "") -> None:
    console.print(Padding(Text(text, style=style), (0, 2), expand=False))


def alert(console: Console, text: str) -> None:
    """An alert as Slack would show it: its first line bold, without the marks around it."""
    first, _, rest = text.partition("\n")
    body = Text.assemble((first.strip("*"), "bold"), "\n", rest)
    panel = Panel(body, title="alert at the webhook", title_align="left", border_style="yellow")
    console.print(Padding(panel, (1, 2, 0, 2)))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[RenderableType]]) -> Table:
    made = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for number, name in enumerate(columns):
        made.add_column(name, style="dim" if not number else "", overflow="fold")
    for row in rows:
        if row:
            made.add_row(*row)
        else:
            made.add_section()
    return made


def dim(text: str) -> Text:
    return Text(text, style="dim")
