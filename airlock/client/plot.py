"""What clients felt as a picture: the longest wait over time, on the steps of the deploy.

Two scales of time, from the moment at which production was first touched: what was before is the
base line, and never more than a third of the width. Waits are on a logarithmic scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from airlock import timeline
from airlock.client.felt import KINDS, Felt, Kind, Line, Stall, shown_ms
from airlock.timeline import INK, LINE, QUIET_INK, WAITS, WIDTH, StepTime

LEFT, RIGHT = 54.0, WIDTH - 16.0
HIGH = 190.0
LABEL_ROW = 15.0
LABEL_ROWS = 4
BOTTOM = 74.0
CUT = 26.0
MARKS = 16.0
BEFORE_SHARE = 0.32
# Nobody was asked for so long: that stretch is cut out.
_SILENT_S = 3.0
# A character of 11 px.
_CHARACTER = 6.3
_FAILURE = "#dc2626"
COLOURS: dict[Kind, str] = {
    "service read": "#0f766e",
    "service write": "#b45309",
    "database read": "#2563eb",
    "database write": "#9333ea",
}


# ---------------------------------------------------------------- time


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stretch:
    """A part of the axis in which clients were asked, in seconds since the zero of the axis."""

    begin: float
    end: float
    left: float = 0.0
    right: float = 0.0

    def x(self, second: float) -> float:
        share = (second - self.begin) / (self.end - self.begin)
        return self.left + min(1.0, max(0.0, share)) * (self.right - self.left)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    zero: float
    stretches: tuple[_Stretch, ...]

    def x(self, second: float) -> float:
        return next((s for s in self.stretches if second <= s.end), self.stretches[-1]).x(second)

    def shows(self, begin: float, end: float) -> bool:
        return any(begin < s.end and end > s.begin for s in self.stretches)

    def ticks(self) -> Iterator[tuple[float, str]]:
        """Where they are, and what stands there; before the zero with a minus."""
        for is_before in (True, False):
            found = [s for s in self.stretches if (s.end <= 0) is is_before]
            if not found:
                continue
            seconds = sum(s.end - s.begin for s in found)
            wide = seconds / max(1.0, sum(s.right - s.left for s in found) / 74)
            pace = next((nice for nice in timeline.NICE_S if nice >= wide), 3600.0)
            for s in found:
                first = math.ceil(s.begin / pace - 1e-6)
                for number in range(first, math.floor(s.end / pace + 1e-6) + 1):
                    if is_before and number == 0:
                        continue
                    sign = "−" if number < 0 else ""
                    yield s.x(number * pace), sign + timeline.tick(round(abs(number * pace), 2))


def _axis(lines: Sequence[Line], zero: float) -> _Axis:
    spans = sorted(
        _span(line, number, zero) for line in lines for number in {*line.longest_ms, *line.failed}
    )
    found: list[tuple[float, float]] = []
    for begin, end in spans:
        if found and begin - found[-1][1] <= max(_SILENT_S, end - begin):
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((begin, end))
    parts = [part for begin, end in found for part in _split(begin, end)]
    return _Axis(zero=zero, stretches=tuple(_placed(parts)))


def _span(line: Line, number: int, zero: float) -> tuple[float, float]:
    """The stretch of one number of a line; what was before the zero does not reach beyond it."""
    start = line.began_at.timestamp() - zero
    begin, end = start + number * line.width_s, start + (number + 1) * line.width_s
    return begin, min(end, 0.0) if begin < 0 else end


def _split(begin: float, end: float) -> list[tuple[float, float]]:
    """The same in two where production is touched in it. What is too short to see is left out."""
    if begin < 0 < end:
        return [part for part in ((begin, 0.0), (0.0, end)) if part[1] - part[0] > 1e-6]
    return [(begin, end)]


def _placed(parts: Sequence[tuple[float, float]]) -> Iterator[_Stretch]:
    cuts = [end != begin for (_, end), (begin, _) in pairwise(parts)]
    room = RIGHT - LEFT - CUT * sum(cuts)
    before = sum(end - begin for begin, end in parts if end <= 0)
    during = sum(end - begin for begin, end in parts if end > 0)
    share = min(BEFORE_SHARE, before / (before + during)) if during else 1.0
    left = LEFT
    for (begin, end), is_cut in zip(parts, [*cuts, False], strict=True):
        whole, part = (before, share) if end <= 0 else (during, 1 - share)
        right = left + room * part * (end - begin) / whole
        yield _Stretch(begin=begin, end=end, left=left, right=right)
        left = right + (CUT if is_cut else 0.0)


# ---------------------------------------------------------------- waits


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """Waits in ms to heights, logarithmic.

    room: above the highest, for marks.
    """

    low: float
    high: float
    top: float
    bottom: float
    room: float

    def y(self, ms: float) -> float:
        share = math.log(max(ms, self.low) / self.low) / math.log(self.high / self.low)
        return self.bottom - min(1.0, share) * (self.bottom - self.top - self.room)

    def decades(self) -> Iterator[float]:
        ms = self.low
        while ms <= self.high * 1.001:
            yield ms
            ms *= 10


def _scale(lines: Sequence[Line], top: float) -> _Scale:
    seen = [ms for line in lines for ms in line.longest_ms.values() if ms > 0] or [1.0]
    low = 10.0 ** math.floor(math.log10(max(0.1, sorted(seen)[len(seen) // 20])))
    # Room above the longest for its label.
    high = max(low * 100, max(seen) * 3)
    room = MARKS if any(line.failed for line in lines) else 0.0
    return _Scale(low=low, high=high, top=top, bottom=top + HIGH, room=room)


# ---------------------------------------------------------------- the picture


def draw(felt: Felt, steps: Sequence[StepTime] = ()) -> str:
    """An SVG: the longest wait of each kind of request over time. Empty where none was measured."""
    lines = [line for line in felt.lines if line.longest_ms or line.failed]
    if not lines:
        return ""
    began = min(line.began_at for line in lines)
    zero = (felt.touched_at or began).timestamp()
    axis = _axis(lines, zero)
    bands = _bands(axis, steps)
    rows = max((band.row + 1 for band in bands if band.row is not None), default=0)
    scale = _scale(lines, 14 + LABEL_ROW * rows)
    svg = timeline.canvas(WIDTH, round(scale.bottom + BOTTOM), felt.sentence)
    for band in bands:
        _band(svg, scale, band)
    _grid(svg, axis, scale, touched=felt.touched_at is not None)
    for kind in KINDS:
        for line in lines:
            if line.kind == kind:
                _waits(svg, axis, scale, line)
    for line in lines:
        _failures(svg, axis, scale, line)
    if (stall := felt.longest) is not None:
        _longest(svg, axis, scale, stall)
    _legend(svg, lines, scale.bottom + BOTTOM - 32)
    said = "The longest wait of each moment, on a logarithmic scale."
    if felt.touched_at is not None:
        said += " 0 s: production is first touched."
    timeline.words(svg, LEFT, scale.bottom + BOTTOM - 13, said, fill=QUIET_INK, **_SMALL)
    return ElementTree.tostring(svg, encoding="unicode")


def _grid(svg: Element, axis: _Axis, scale: _Scale, *, touched: bool) -> None:
    for ms in scale.decades():
        y = scale.y(ms)
        timeline.rect(svg, LEFT, y, RIGHT - LEFT, 0.6, fill=LINE)
        said = f"{ms:g} ms" if ms < 1000 else f"{ms / 1000:g} s"
        timeline.words(svg, LEFT - 6, y + 4, said, fill=QUIET_INK, text_anchor="end", **_SMALL)
    for earlier, later in pairwise(axis.stretches):
        if earlier.right < later.left:
            wide = later.left - earlier.right
            timeline.rect(svg, earlier.right, scale.top, wide, HIGH, fill="url(#cut)", _class="cut")
    reached, before = 0.0, ""
    for x, said in axis.ticks():
        half = len(said) * _CHARACTER / 2
        # Hours later the seconds do not show any more.
        if said != before and x - half > reached and x + half < WIDTH - 2:
            timeline.upright(svg, x, scale.bottom, scale.bottom + 4, stroke=QUIET_INK)
            timeline.words(
                svg, x, scale.bottom + 16, said, fill=QUIET_INK, text_anchor="middle", **_SMALL
            )
            reached, before = x + half + 4, said
    if touched and axis.stretches[0].begin < 0 < axis.stretches[-1].end:
        x = axis.x(1e-9)
        timeline.upright(svg, x, scale.top, scale.bottom, stroke=INK, stroke_width="1.2")


_SMALL = {"font_size": "11"}


def _waits(svg: Element, axis: _Axis, scale: _Scale, line: Line) -> None:
    """A line of steps; it is broken where nobody was asked."""
    path, last = list[str](), -math.inf
    for number in sorted(line.longest_ms):
        begin, end = _span(line, number, axis.zero)
        y = scale.y(line.longest_ms[number])
        # Within the stretch that it is in, not the one that ends where it begins.
        left, right = axis.x(begin + 1e-6), axis.x(end)
        joined = begin - last <= max(_SILENT_S / 6, 2 * line.width_s)
        path.append(f"{'L' if joined else 'M'}{left:.1f} {y:.1f}H{right:.1f}")
        last = end
    drawn = timeline.add(
        svg,
        "path",
        d="".join(path),
        fill="none",
        stroke=COLOURS[line.kind],
        stroke_width="1.5",
        stroke_linejoin="round",
        _class=line.kind.replace(" ", "-"),
    )
    SubElement(drawn, "title").text = f"{line.kind}, longest wait"


def _failures(svg: Element, axis: _Axis, scale: _Scale, line: Line) -> None:
    for number, count in sorted(line.failed.items()):
        x, y = axis.x(sum(_span(line, number, axis.zero)) / 2), scale.top + 8
        d = f"M{x - 3.5:.1f} {y - 3.5:.1f}l7 7m0 -7l-7 7"
        mark = timeline.add(
            svg, "path", d=d, stroke=_FAILURE, stroke_width="2", fill="none", _class="failure"
        )
        SubElement(mark, "title").text = f"{count} failed, {line.kind}"


def _longest(svg: Element, axis: _Axis, scale: _Scale, stall: Stall) -> None:
    x, y = axis.x(stall.at.timestamp() - axis.zero + 1e-6), scale.y(stall.ms)
    colour = COLOURS[stall.kind]
    ring = {"fill": "none", "stroke": colour, "stroke_width": "2"}
    timeline.add(svg, "circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r="4", **ring)
    said = f"longest {shown_ms(stall.ms)}: {stall.kind}, {stall.channel}"
    said = said if len(said) <= 72 else f"{said[:71]}…"
    # Beside the ring; above it where neither side has room.
    wide = len(said) * 6.4
    places = (
        ("start", x + 10, y - 2, x + 10 + wide < RIGHT),
        ("end", x - 10, y - 2, x - 10 - wide > LEFT),
        ("middle", min(max(x, LEFT + wide / 2), RIGHT - wide / 2), y - 10, True),
    )
    anchor, left, top, _ = next(place for place in places if place[3])
    # A halo of the ground's colour: lines may pass behind the words.
    halo = {"stroke": timeline.GROUND, "stroke_width": "4", "paint_order": "stroke"}
    timeline.words(
        svg,
        left,
        top,
        said,
        fill=INK,
        text_anchor=anchor,
        font_weight="600",
        stroke_linejoin="round",
        **_SMALL,
        **halo,
    )


# ---------------------------------------------------------------- steps


@dataclass(slots=True, kw_only=True)
class _Band:
    """One step behind the plot. row: in which its name stands, the lowest is 0; None: no room."""

    step: StepTime
    left: float
    right: float
    fill: str
    row: int | None = None
    words_at: float = 0.0

    @property
    def stem(self) -> float:
        """Where the line is that leads to its name."""
        return (self.left + self.right) / 2

    @property
    def wide(self) -> float:
        return len(self.step.step) * _CHARACTER


def _bands(axis: _Axis, steps: Sequence[StepTime]) -> list[_Band]:
    """The steps that the axis shows, with names that touch neither each other nor a stem."""
    made = list[_Band]()
    for step in sorted(steps, key=lambda each: each.began_at):
        begin = step.began_at.timestamp() - axis.zero
        end = begin + max(0.0, step.seconds or 0.0)
        if step.step in WAITS or not axis.shows(begin, max(end, begin + 1e-3)):
            continue
        fill = "#e2e8f0" if len(made) % 2 else "#edf1f6"
        made.append(
            _Band(
                step=step,
                left=axis.x(begin + 1e-6),
                right=axis.x(end),
                fill="#fee2e2" if step.kind == "failed" else fill,
            )
        )
    # What touches production has the better places; from the right, since names go to the right.
    touch = axis.x(0.0)
    waiting = sorted(made, key=lambda each: (each.left < touch, -each.stem))
    placed = list[_Band]()
    while waiting:
        band = waiting.pop(0)
        _place(band, placed, [each.stem for each in waiting])
        placed.append(band)
    return made


def _place(band: _Band, placed: Sequence[_Band], to_come: Sequence[float]) -> None:
    """Find room for a name: over no stem of those to come, if that can be."""
    for spared in (to_come, ()):
        for row in range(LABEL_ROWS):
            for left in (band.stem - band.wide / 2, band.stem - 3, band.stem - band.wide + 3):
                begin = min(max(left, LEFT), RIGHT - band.wide)
                end = begin + band.wide
                covers = any(begin - 3 < stem < end + 3 for stem in spared)
                if not covers and _is_free(placed, row, begin, end, band.stem):
                    band.row, band.words_at = row, begin
                    return


def _is_free(placed: Sequence[_Band], row: int, begin: float, end: float, stem: float) -> bool:
    for other in placed:
        if other.row is None:
            continue
        left, right = other.words_at, other.words_at + other.wide
        beside = other.row == row and begin < right + 8 and end > left - 8
        # A stem passes all the rows below its own.
        under = other.row < row and left - 3 < stem < right + 3
        crossed = other.row > row and begin - 3 < other.stem < end + 3
        if beside or under or crossed:
            return False
    return True


def _band(svg: Element, scale: _Scale, band: _Band) -> None:
    wide = max(1.0, band.right - band.left)
    drawn = timeline.rect(svg, band.left, scale.top, wide, HIGH, fill=band.fill, _class="step")
    title = f"{band.step.step}: {band.step.took}"
    SubElement(drawn, "title").text = timeline.xml(title)
    if band.row is None:
        return
    y = scale.top - 7 - band.row * LABEL_ROW
    ink = timeline.EDGES["failed"] if band.step.kind == "failed" else QUIET_INK
    timeline.upright(svg, band.stem, y + 3, scale.top, stroke=timeline.FRAME, stroke_width="0.8")
    timeline.words(svg, band.words_at, y, band.step.step, fill=ink, _class="label", **_SMALL)


def _legend(svg: Element, lines: Sequence[Line], y: float) -> None:
    x = LEFT
    for kind in KINDS:
        if any(line.kind == kind for line in lines):
            timeline.rect(svg, x, y - 5, 18, 2.5, fill=COLOURS[kind])
            timeline.words(svg, x + 24, y, kind, fill=QUIET_INK, **_SMALL)
            x += 44 + _CHARACTER * len(kind)
    if any(line.failed for line in lines):
        mark = f"M{x:.1f} {y - 7:.1f}l7 7m0 -7l-7 7"
        timeline.add(svg, "path", d=mark, stroke=_FAILURE, stroke_width="2", fill="none")
        timeline.words(svg, x + 13, y, "failed requests", fill=QUIET_INK, **_SMALL)
