"""Draws measurements that grow with a size: both axes logarithmic, as SVG by hand."""

import math
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 44, 52
COLOURS = ["#1f5fbf", "#7fb0ee", "#d1495b", "#e0a030", "#6a8d5c", "#777777"]


def short(number):
    for factor, letter in ((1_000_000, "M"), (1_000, "k")):
        if number >= factor:
            return f"{number / factor:g}{letter}"
    return f"{number:g}"


def ticks(low, high):
    """1, 2 and 5 times the powers of ten from `low` to `high`; only the powers where that would be many."""
    steps = (1, 2, 5) if math.log10(high / low) < 3 else (1,)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [step * 10.0 ** exponent for exponent in exponents for step in steps]
    return [each for each in every if low <= each <= high]


def draw(title, counted, sizes, lines):
    values = [value for points in lines.values() for value in points]
    low, high = min(values) / 1.3, max(values) * 1.3

    def x(size):
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(size / sizes[0]) / math.log(sizes[-1] / sizes[0])

    def y(value):
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - math.log(value / low) / math.log(high / low))

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
           f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
           f'<text x="{LEFT}" y="24" font-size="15">{escape(title)}</text>']
    for tick in ticks(low, high):
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#dddddd"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{short(tick)} ns</text>')
    for size in sizes:
        out.append(f'<line x1="{x(size):.1f}" x2="{x(size):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#eeeeee"/>')
        out.append(f'<text x="{x(size):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{short(size)}</text>')
    out.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 14}" text-anchor="end">{escape(counted)}</text>')
    for i, (label, points) in enumerate(lines.items()):
        colour = COLOURS[i % len(COLOURS)]
        path = " ".join(f"{x(size):.1f},{y(value):.1f}" for size, value in zip(sizes, points))
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        for size, value in zip(sizes, points):
            out.append(f'<circle cx="{x(size):.1f}" cy="{y(value):.1f}" r="3" fill="{colour}"/>')
        above = TOP + 16 + 17 * i
        out.append(f'<rect x="{LEFT + 12}" y="{above - 9}" width="18" height="4" fill="{colour}"/>')
        out.append(f'<text x="{LEFT + 36}" y="{above - 3}">{escape(label)}</text>')
    out.append("</svg>")
    return "\n".join(out) + "\n"
