"""The steps of a deploy as a picture."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

Kind = Literal["done", "rollback", "waiting", "failed", "unfinished"]

# Steps in which a person is waited for: however long, the others stay in proportion.
WAITS = frozenset({"approve"})
UNDOES = frozenset({"roll_back", "swap_back"})

WIDTH = 760
ROW = 26
BAR = 14
TOP = 44
BOTTOM = 54
DURATIONS = 144
LABEL_CHARACTERS = 24
SMALLEST = 3.0
CUT = 74.0
# A quiet stretch is cut short when it is longer than this share of the work.
CUT_SHARE = 0.15

INK, QUIET_INK, LINE, GROUND, FRAME = "#0f172a", "#475569", "#cbd5e1", "#f8fafc", "#94a3b8"
FILLS: dict[Kind, str] = {
    "done": "#0f766e",
    "rollback": "#7c3aed",
    "waiting": "url(#waiting)",
    "failed": "url(#failed)",
    "unfinished": "none",
}
EDGES: dict[Kind, str] = {
    "done": "#0f766e",
    "rollback": "#7c3aed",
    "waiting": "#64748b",
    "failed": "#991b1b",
    "unfinished": "#b45309",
}
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
NICE_S = (
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    1,
    2,
    5,
    10,
    20,
    30,
    60,
    120,
    300,
    600,
    1200,
    1800,
    3600,
)
_MOST_TICKS = 6
# The smaller unit of a round length.
_NOTHING_MORE = re.compile(r" 0+ \w+$")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """One step of the journal: when it began, how long it took, how it ended."""

    step: str
    began_at: datetime
    seconds: float | None  # None: it did not come to an end
    ended: str

    @property
    def kind(self) -> Kind:
        if self.ended == "failed":
            return "failed"
        if self.step in WAITS:
            return "waiting"
        if self.seconds is None:
            return "unfinished"
        return "rollback" if self.step in UNDOES else "done"

    @property
    def took(self) -> str:
        """Such as ``1.2 s`` or ``2 h 13 min, waited``."""
        if self.seconds is None:
            return "still waiting" if self.kind == "waiting" else "unfinished"
        word = {"failed": ", failed", "waiting": ", waited"}.get(self.kind, "")
        return duration(self.seconds) + word


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Something that happened within a step."""

    at: datetime
    label: str


def duration(seconds: float) -> str:
    """A length of time for people: ``0.43 s``, ``12.3 s``, ``4 min 05 s``, ``2 h 13 min``."""
    seconds = max(0.0, seconds)
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {left:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def data_address(svg: str) -> str:
    """The picture as an address, which is how both of Prefect's UIs and an ``<img>`` take it."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


# ---------------------------------------------------------------- the axis


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bar:
    """One step in seconds since the first one began."""

    step: StepTime
    begin: float
    end: float

    @property
    def is_quiet(self) -> bool:
        return self.step.seconds is None or self.step.step in WAITS


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stretch:
    """A part of the axis with one scale. cut: it is shown shorter than it was."""

    begin: float
    end: float
    cut: bool
    left: float = 0.0
    right: float = 0.0

    def x(self, second: float) -> float:
        length = self.end - self.begin
        share = (second - self.begin) / length if length else 0.0
        return self.left + min(1.0, max(0.0, share)) * (self.right - self.left)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    stretches: tuple[_Stretch, ...]

    @property
    def worked(self) -> float:
        """Seconds that are shown to scale."""
        return sum(each.end - each.begin for each in self.stretches if not each.cut)

    def x(self, second: float) -> float:
        return next((s for s in self.stretches if second <= s.end), self.stretches[-1]).x(second)

    def ticks(self) -> Iterator[tuple[float, float]]:
        """Seconds to scale since the beginning, and where they are."""
        wide = self.worked / _MOST_TICKS
        pace = next((nice for nice in NICE_S if nice >= wide), 3600 * (wide // 3600 + 1))
        passed, number = 0.0, 0
        for each in self.stretches:
            while not each.cut and number * pace <= passed + each.end - each.begin:
                yield number * pace, each.x(each.begin + number * pace - passed)
                number += 1
            passed += 0.0 if each.cut else each.end - each.begin


def _bars(steps: Sequence[StepTime]) -> list[_Bar]:
    ordered = sorted(steps, key=lambda each: each.began_at)
    start = ordered[0].began_at
    begins = [(each.began_at - start).total_seconds() for each in ordered]
    # To the microsecond, as the ledger has it: less would be no length to scale by.
    lengths = [round(max(0.0, each.seconds or 0.0), 6) for each in ordered]
    known = [begin + length for begin, length in zip(begins, lengths, strict=True)]
    # What did not end is shown until the next step began, or a little beyond the last one.
    beyond = max(known) + max(0.06 * max(known), 0.2)
    bars: list[_Bar] = []
    for number, (begin, end, each) in enumerate(zip(begins, known, ordered, strict=True)):
        later = (other for other in begins[number + 1 :] if other > begin)
        shown = next(later, beyond) if each.seconds is None else end
        bars.append(_Bar(step=each, begin=begin, end=shown))
    return bars


def _axis(bars: Sequence[_Bar], left: float, right: float) -> _Axis:
    """Work to scale; long stretches in which only a person was waited for, or nobody, cut short."""
    last = max(bar.end for bar in bars)
    stretches: list[_Stretch] = []
    reached = 0.0
    working = sorted((bar.begin, bar.end) for bar in bars if not bar.is_quiet)
    for begin, end in [*working, (last, last)]:
        if begin > reached:
            stretches.append(_Stretch(begin=reached, end=begin, cut=True))
        if end > max(begin, reached):
            stretches.append(_Stretch(begin=max(begin, reached), end=end, cut=False))
        reached = max(reached, end)
    work = sum(each.end - each.begin for each in stretches if not each.cut)
    longest = max(CUT_SHARE * work, 1.0) if work else last
    kept = [
        _Stretch(begin=s.begin, end=s.end, cut=s.cut and s.end - s.begin > longest)
        for s in stretches or [_Stretch(begin=0.0, end=last, cut=False)]
    ]
    return _placed(kept, left, right)


def _placed(stretches: Sequence[_Stretch], left: float, right: float) -> _Axis:
    cuts = sum(each.cut for each in stretches)
    cut = min(CUT, (right - left) / 2 / cuts) if cuts else 0.0
    worked = sum(each.end - each.begin for each in stretches if not each.cut)
    scale = (right - left - cuts * cut) / worked if worked else 0.0
    placed: list[_Stretch] = []
    for s in stretches:
        beyond = left + (cut if s.cut else (s.end - s.begin) * scale)
        placed.append(_Stretch(begin=s.begin, end=s.end, cut=s.cut, left=left, right=beyond))
        left = beyond
    return _Axis(stretches=tuple(placed))


# ---------------------------------------------------------------- the picture


def draw(steps: Sequence[StepTime], moments: Sequence[Moment] = ()) -> str:
    """An SVG: one bar for each step, in order, on one axis of time. Empty without steps."""
    if not steps:
        return ""
    bars = _bars(steps)
    labels = max(len(_label(bar.step)) for bar in bars)
    left, right = 24.0 + 7.2 * labels, float(WIDTH - DURATIONS)
    axis = _axis(bars, left, right)
    height = TOP + ROW * len(bars) + BOTTOM
    svg = canvas(WIDTH, height, "Timeline of the steps")
    _scale(svg, axis, bottom=TOP + ROW * len(bars))
    start = bars[0].step.began_at
    for number, bar in enumerate(bars):
        _row(svg, axis, bar, top=TOP + ROW * number, right=right)
    for moment in moments:
        _moment(svg, axis, bars, moment, (moment.at - start).total_seconds())
    began = f"Began {start:%Y-%m-%d %H:%M:%S} UTC"
    words(svg, 12, 20, began, fill=QUIET_INK)
    _legend(svg, bars, height - 16, marked=bool(moments))
    return ElementTree.tostring(svg, encoding="unicode")


def canvas(wide: int, high: int, title: str) -> Element:
    """An empty picture with its frame, and the hatchings that ``FILLS`` names."""
    svg = Element(
        "svg",
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {wide} {high}",
        width=str(wide),
        height=str(high),
        role="img",
    )
    svg.set("font-family", "system-ui, sans-serif")
    svg.set("font-size", "12")
    SubElement(svg, "title").text = title
    defs = SubElement(svg, "defs")
    _pattern(defs, "waiting", "#e2e8f0", "#64748b")
    _pattern(defs, "failed", "#dc2626", "#7f1d1d")
    _pattern(defs, "cut", GROUND, "#e2e8f0")
    # A ground of its own: it is shown on light pages and on dark ones.
    rect(svg, 0.5, 0.5, wide - 1, high - 1, rx="6", fill=GROUND, stroke=FRAME)
    return svg


def _pattern(defs: Element, name: str, ground: str, line: str) -> None:
    pattern = SubElement(
        defs, "pattern", id=name, width="6", height="6", patternUnits="userSpaceOnUse"
    )
    rect(pattern, 0, 0, 6, 6, fill=ground)
    add(pattern, "path", d="M-1 7 L7 -1", stroke=line, stroke_width="1.5")


def _scale(svg: Element, axis: _Axis, *, bottom: float) -> None:
    for second, x in axis.ticks():
        upright(svg, x, TOP, bottom, stroke=LINE)
        words(svg, x, bottom + 14, tick(second), fill=QUIET_INK, text_anchor="middle")
    for each in axis.stretches:
        if not each.cut:
            continue
        wide = each.right - each.left
        rect(svg, each.left, TOP, wide, bottom - TOP, fill="url(#cut)", _class="cut")
        if wide >= CUT:
            text = duration(each.end - each.begin)
            middle = (each.left + each.right) / 2
            words(svg, middle, TOP - 6, text, fill=QUIET_INK, text_anchor="middle", font_size="11")


def tick(second: float) -> str:
    """What stands at a tick of the axis."""
    return f"{second:g} s" if second < 60 else _NOTHING_MORE.sub("", duration(second))


def _row(svg: Element, axis: _Axis, bar: _Bar, *, top: float, right: float) -> None:
    kind, middle = bar.step.kind, top + ROW / 2
    x = min(axis.x(bar.begin), right - SMALLEST)
    wide = max(SMALLEST, axis.x(bar.end) - x)
    words(svg, 12, middle + 4, _label(bar.step), fill=INK)
    dashes = {"stroke_dasharray": "4 3"} if bar.step.seconds is None else {}
    drawn = rect(
        svg,
        x,
        middle - BAR / 2,
        wide,
        BAR,
        rx="2",
        fill=FILLS[kind],
        stroke=EDGES[kind],
        _class=f"bar {kind}",
        **dashes,
    )
    title = f"{bar.step.step}: {bar.step.took}, from {bar.step.began_at:%H:%M:%S} UTC"
    SubElement(drawn, "title").text = xml(title)
    strong = {"font_weight": "600"} if kind in ("failed", "unfinished") else {}
    ink = EDGES[kind] if strong else INK
    words(svg, right + 10, middle + 4, _mark(kind) + bar.step.took, fill=ink, **strong)


def _mark(kind: Kind) -> str:
    return {"failed": "✗ ", "unfinished": "… ", "rollback": "↩ "}.get(kind, "")


def _moment(svg: Element, axis: _Axis, bars: Sequence[_Bar], moment: Moment, second: float) -> None:
    """A mark in the bar of the step that was under way; none if no step was."""
    inside = [n for n, bar in enumerate(bars) if bar.begin <= second <= bar.end]
    if not inside:
        return
    middle = TOP + ROW * inside[-1] + ROW / 2
    x = axis.x(second)
    mark = upright(svg, x, middle - 11, middle + 11, stroke=INK, stroke_width="2", _class="moment")
    SubElement(mark, "title").text = xml(moment.label)


def _legend(svg: Element, bars: Sequence[_Bar], y: float, *, marked: bool) -> None:
    known: dict[Kind, str] = {
        "done": "done",
        "rollback": "rollback",
        "waiting": "waiting for a person",
        "failed": "failed",
        "unfinished": "no end in the journal",
    }
    present = {bar.step.kind for bar in bars}
    x = 12.0
    for kind, word in known.items():
        if kind in present:
            rect(svg, x, y - 9, 16, 10, rx="2", fill=FILLS[kind], stroke=EDGES[kind])
            words(svg, x + 22, y, word, fill=QUIET_INK, font_size="11")
            x += 40 + 6.2 * len(word)
    if marked:
        upright(svg, x + 4, y - 11, y + 3, stroke=INK, stroke_width="2")
        words(svg, x + 12, y, "a migration", fill=QUIET_INK, font_size="11")


def _label(step: StepTime) -> str:
    most = LABEL_CHARACTERS
    return step.step if len(step.step) <= most else f"{step.step[: most - 1]}…"


# ---------------------------------------------------------------- XML


def add(parent: Element, tag: str, **attributes: str) -> Element:
    """An element; ``stroke_width`` becomes ``stroke-width``, ``_class`` becomes ``class``."""
    names = {name.strip("_").replace("_", "-"): value for name, value in attributes.items()}
    return SubElement(parent, tag, names)


def rect(
    parent: Element, x: float, y: float, wide: float, high: float, **attributes: str
) -> Element:
    """A rectangle; names as in ``add``."""
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "width": f"{wide:.1f}", "height": f"{high:.1f}"}
    return add(parent, "rect", **place, **attributes)


def upright(parent: Element, x: float, top: float, bottom: float, **attributes: str) -> Element:
    """A vertical line; names as in ``add``."""
    place = {"x1": f"{x:.1f}", "x2": f"{x:.1f}", "y1": f"{top:.1f}", "y2": f"{bottom:.1f}"}
    return add(parent, "line", **place, **attributes)


def words(parent: Element, x: float, y: float, text: str, **attributes: str) -> None:
    """A line of text; names as in ``add``."""
    add(parent, "text", x=f"{x:.1f}", y=f"{y:.1f}", **attributes).text = xml(text)


def xml(text: str) -> str:
    """The text without the characters that XML cannot hold, however they are written."""
    return _NOT_XML.sub("\ufffd", text)
