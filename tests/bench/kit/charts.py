"""Bars with their spread, as SVG that can be read on white and on black: one plot a section of figures."""

from statistics import median
from xml.sax.saxutils import escape

from .figures import FLOORS, names, number

WIDTH, LABEL, VALUE, BAR, GAP, HEAD = 860, 180, 80, 16, 12, 54

STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328 }
  .title { font-size: 15px; font-weight: 600 }
  .faint { fill: #59636e }
  .foot { font-size: 11px }
  .rcon { fill: #0a7d5a }
  .peer { fill: #8c959f }
  .floor { fill: #c9d1d9 }
  .line { stroke: #d1d9e0; stroke-width: 1 }
  .spread { stroke: #1f2328; stroke-width: 1.5; fill: none }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .faint { fill: #9198a1 }
    .rcon { fill: #3fb98f }
    .peer { fill: #6e7681 }
    .floor { fill: #454c55 }
    .line { stroke: #3d444d }
    .spread { stroke: #e6edf3 }
  }
"""


def kind(name):
    return "rcon" if name.startswith("rcon") else "floor" if name in FLOORS else "peer"


def text(x, y, words, style="", anchor="start"):
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{style}" text-anchor="{anchor}">{escape(words)}</text>'


def chart(section, rows, foot=""):
    """A group of bars for each row, each on a scale of its own, and below them `foot` in small letters."""
    shapes, y = [], HEAD
    columns = names(rows)
    room = WIDTH - LABEL - VALUE
    for asked in rows:
        seen = {
            name: [value for value in asked["figures"][name].get("value", ()) if value is not None]
            for name in columns
            if name in asked["figures"]
        }
        # One slow moment shall not make all bars short: what is far beyond the largest median is cut off.
        middle = max((median(values) for values in seen.values() if values), default=0) or 1
        longest = min(max((max(values) for values in seen.values() if values), default=1), 1.2 * middle)
        better = "less is better" if asked["lower"] else "more is better"
        shapes.append(text(12, y + 4, f"{asked['title']}"))
        shapes.append(text(WIDTH - 12, y + 4, f"{asked['unit']}, {better}", "faint", "end"))
        y += 14
        for name, values in seen.items():
            middle_line = y + BAR / 2
            shapes.append(text(LABEL - 10, y + BAR - 3, name, "" if kind(name) == "rcon" else "faint", "end"))
            if values:
                wide = room * median(values) / longest
                shapes.append(
                    f'<rect x="{LABEL}" y="{y}" width="{max(wide, 1):.1f}" height="{BAR}" rx="2" class="{kind(name)}"/>'
                )
                least, most = (LABEL + room * min(value / longest, 1) for value in (min(values), max(values)))
                if most - least > 1:
                    end = "" if max(values) > longest else f"M{most:.1f} {middle_line - 4}v8"
                    shapes.append(
                        f'<path class="spread" d="M{least:.1f} {middle_line - 4}v8M{least:.1f} {middle_line}H{most:.1f}{end}"/>'
                    )
                shapes.append(text(max(LABEL + wide, most) + 8, y + BAR - 3, number(median(values))))
            else:
                shapes.append(text(LABEL + 8, y + BAR - 3, "failed", "faint"))
            y += BAR + 4
        y += GAP
        shapes.append(f'<path class="line" d="M12 {y - GAP / 2:.0f}H{WIDTH - 12}"/>')
        y += GAP
    height = y - GAP + 4
    if foot:
        shapes.append(text(12, height + 12, foot, "faint foot"))
        height += 24
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'role="img" aria-label="{escape(section)}">\n<style>{STYLE}</style>\n'
        + "\n".join([text(12, 24, section, "title"), *shapes])
        + "\n</svg>\n"
    )
