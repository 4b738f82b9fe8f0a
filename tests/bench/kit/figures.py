"""What a part of the benchmark measured, in one form for all parts: rows, as JSON, Markdown and a verdict.

A row is one question ("`exec C true`") with the answers of all who were asked it:

    {"section": "Start", "title": "exec C true", "unit": "ms", "lower": true,
     "figures": {"rcon": {"value": [3.4, 3.5], "cpu_ms": [1.2, 1.2]}, "podman": {…}}}

`value` holds each round's figure in `unit`; the other lists are what was seen beside it (`cpu_ms`, `instructions_m`,
`user_s`, `mib`, …); `failed` counts runs that failed, `why` tells why there is none. Sections become tables and plots.
"""

import json
import os
import platform
from statistics import median

# Names that are no peers: the kernel's own price, the least that the work can cost, a namespace around a program.
FLOORS = ("bare", "floor", "floor, on disk", "bwrap", "subordinate ids")
# What is shown beside a figure, in this order: key, form.
BESIDE = (
    ("cpu_ms", "{} ms CPU"), ("instructions_m", "{} M instructions"), ("user_s", "{} s user"), ("system_s", "{} s system"),
    ("mib", "{} MiB"), ("s_per_gb", "{} s/GB"), ("relay_s_per_gb", "relay {} s/GB"), ("relay_us", "relay {} µs"),
)  # fmt: skip


def row(section, title, unit, figures, lower=True):
    return {"section": section, "title": title, "unit": unit, "lower": lower, "figures": figures}


def machine(**more):
    """What a figure depends on besides the programs."""
    try:
        with open("/proc/cpuinfo") as file:
            model = next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        model = "?"
    about = {"kernel": platform.release(), "cores": os.cpu_count(), "processor": model, "load": round(os.getloadavg()[0], 1)}
    return about | more


def in_words(about):
    """A machine in one line: {"cores": 2} is "cores 2"."""

    def words(value):
        return ", ".join(value) if isinstance(value, list) else number(value) if isinstance(value, float) else str(value)

    return "; ".join(f"{key} {words(value)}" for key, value in about.items() if value not in ("", []))


def write(path, about, rows, aims=(), **more):
    with open(path, "w") as file:
        json.dump({"machine": about, "table": rows, "aims": list(aims), **more}, file, indent=1)
        file.write("\n")


def middle(figure, key="value"):
    seen = [value for value in (figure or {}).get(key, ()) if value is not None]
    return median(seen) if seen else None


def number(value):
    if value is None:
        return "–"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}"


def ratio(value, other):
    return number(value / other) if value is not None and other else "–"


def is_peer(name):
    return not name.startswith("rcon") and name not in FLOORS


def best_peer(asked):
    seen = [value for name, figure in asked["figures"].items() if is_peer(name) and (value := middle(figure)) is not None]
    return (min if asked["lower"] else max)(seen) if seen else None


def times_better(asked):
    """How many times better than the best peer rcon is, whichever way better is."""
    mine, best = middle(asked["figures"].get("rcon")), best_peer(asked)
    if mine is None or best is None or not mine or not best:
        return None
    return best / mine if asked["lower"] else mine / best


def cell(figure):
    if figure is None:
        return ""
    seen = [value for value in figure.get("value", ()) if value is not None]
    if not seen:
        return "failed" if figure.get("why") or figure.get("failed") else "–"
    text = f"**{number(median(seen))}**"
    if len(seen) > 1:
        text += f" [{number(min(seen))}–{number(max(seen))}]"
    beside = [form.format(number(value)) for key, form in BESIDE if (value := middle(figure, key))]
    if figure.get("failed"):
        beside.append(f"{figure['failed']} failed")
    return " · ".join([text, *beside])


def sections(rows):
    """The rows by their section, in the order they came."""
    found = {}
    for asked in rows:
        found.setdefault(asked["section"], []).append(asked)
    return found


def names(rows):
    """Everybody who answered, floors first, then rcon, then its peers."""
    found = []
    for asked in rows:
        found += [name for name in asked["figures"] if name not in found]
    return sorted(found, key=lambda name: (name not in FLOORS, not name.startswith("rcon")))


def markdown(rows):
    """One table a section: a line a row, a column for each who was asked."""
    lines = []
    for section, some in sections(rows).items():
        columns = names(some)
        floor = next((name for name in FLOORS if name in columns), None)
        peers = any(map(is_peer, columns))
        head = [section, *columns, *(["rcon beside the best peer"] if peers else []), *([f"rcon ÷ {floor}"] if floor else [])]
        lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        for asked in some:
            line = [f"{asked['title']}, {asked['unit']}", *(cell(asked["figures"].get(name)) for name in columns)]
            if peers:
                better = times_better(asked)
                line.append(f"{number(better)}x" if better else "–")
            if floor:
                line.append(ratio(middle(asked["figures"].get("rcon")), middle(asked["figures"].get(floor))))
            lines.append("| " + " | ".join(line) + " |")
        lines.append("")
    return lines


def aim(words, value, wanted, most=False, where=""):
    """Something that is aimed at, and whether it was reached; None for what could not be measured."""
    reached = None if value is None else value <= wanted if most else value >= wanted
    missed = [where or words] if reached is False else []
    return {"aim": words, "wanted": wanted, "most": most, "worst": value, "row": where, "reached": reached, "missed": missed}


def aim_lines(aims):
    lines = ["| aim | wanted | seen | reached |", "|---|---|---|---|"]
    for seen in aims:
        sign = "≤" if seen["most"] else "≥"
        where = f" ({seen['row']})" if seen["row"] else ""
        worst = "not measured" if seen["worst"] is None else f"{number(seen['worst'])}{where}"
        reached = {True: "yes", False: "**no**", None: "–"}[seen["reached"]]
        lines.append(f"| {seen['aim']} | {sign} {seen['wanted']:g} | {worst} | {reached} |")
    return lines
