"""Lines over minutes as an SVG: panels below each other, for light and dark pages."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, log10

_WIDTH, _LEFT, _RIGHT = 960, 78, 24
_TOP, _HEADER, _HEIGHT, _GAP, _BOTTOM = 52, 24, 120, 26, 34
_COLOURS = ("one", "two", "three", "four")
_TICKS = 4
_STYLE = """
    .page { fill: #ffffff; stroke: #d4dae1 }
    text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif }
    text { font-size: 12px; fill: #44505d }
    .title, .panel { font-weight: 600; fill: #1d2733 } .title { font-size: 15px } .panel { font-size: 13px }
    .grid { stroke: #e3e8ed; fill: none } .floor { stroke: #c0392b; stroke-dasharray: 5 4; fill: none }
    polyline { fill: none; stroke-width: 1.6; stroke-linejoin: round }
    .one { stroke: #2f6fb3 } .two { stroke: #b0752a } .three { stroke: #3b8a5a } .four { stroke: #7a69bd }
    .key { stroke-width: 3 }
    @media (prefers-color-scheme: dark) {
      .page { fill: #12181f; stroke: #2d3742 } text { fill: #b7c2cd } .title, .panel { fill: #e6ebf0 }
      .grid { stroke: #26303a } .floor { stroke: #e57368 }
      .one { stroke: #5c9bdc } .two { stroke: #d9a055 } .three { stroke: #58ad78 } .four { stroke: #a596e2 }
    }"""


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines of one unit, by name and at most four; `floor` is a value that they have to stay below."""

    title: str
    lines: Mapping[str, Sequence[float]]
    floor: float | None = None


def draw(title: str, minutes: Sequence[float], panels: Sequence[Panel]) -> str:
    """The whole picture; each line has a value for each of `minutes`."""
    height = _TOP + len(panels) * (_HEADER + _HEIGHT + _GAP) + _BOTTOM - _GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" aria-labelledby="title">',
        f'  <title id="title">{escape(title)}</title>',
        f"  <style>{_STYLE}\n  </style>",
        f'  <rect class="page" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="8"/>',
        f'  <text class="title" x="20" y="30">{escape(title)}</text>',
    ]
    for number, panel in enumerate(panels):
        top = _TOP + number * (_HEADER + _HEIGHT + _GAP)
        parts += _panel(panel, minutes, top)
    parts += _minutes(minutes[-1], height - _BOTTOM)
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel, minutes: Sequence[float], top: int) -> Iterator[str]:
    base, across = top + _HEADER + _HEIGHT, _WIDTH - _LEFT - _RIGHT
    highest = max(*map(max, panel.lines.values()), panel.floor or 0)
    step = _step(highest)
    ticks = max(1, ceil(highest / step))
    scale = _HEIGHT / (ticks * step)
    yield f'  <text class="panel" x="20" y="{top + 10}">{escape(panel.title)}</text>'
    at = 330
    for name, colour in zip(panel.lines, _COLOURS, strict=False):
        yield f'  <path class="key {colour}" d="M{at} {top + 6}h18"/>'
        yield f'  <text x="{at + 24}" y="{top + 10}">{escape(name)}</text>'
        at += 40 + 7 * len(name)
    for tick in range(ticks + 1):
        y = base - tick * step * scale
        yield f'  <path class="grid" d="M{_LEFT} {y:.1f}h{across}"/>'
        yield f'  <text text-anchor="end" x="{_LEFT - 8}" y="{y + 4:.1f}">{tick * step:,.10g}</text>'
    if panel.floor is not None:
        yield f'  <path class="floor" d="M{_LEFT} {base - panel.floor * scale:.1f}h{across}"/>'
    for (_, values), colour in zip(panel.lines.items(), _COLOURS, strict=False):
        points = (
            f"{_LEFT + minute / minutes[-1] * across:.1f},{base - value * scale:.1f}"
            for minute, value in zip(minutes, values, strict=True)
        )
        yield f'  <polyline class="{colour}" points="{" ".join(points)}"/>'


def _minutes(last: float, base: int) -> Iterator[str]:
    across, step = _WIDTH - _LEFT - _RIGHT, max(1, ceil(last / 10))
    for minute in range(0, int(last) + 1, step):
        words = f"{minute} min" if minute + step > last else str(minute)
        yield f'  <text text-anchor="middle" x="{_LEFT + minute / last * across:.1f}" y="{base + 18}">{words}</text>'


def _step(highest: float) -> float:
    """A round number of which about four reach up to `highest`."""
    rough = max(highest, 1e-9) / _TICKS
    power = 10.0 ** int(log10(rough) // 1)
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
