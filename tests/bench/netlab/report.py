"""What was measured, as Markdown: one line a row, the ratios, and the aims beside what was reached."""

from statistics import median

from .networks import PEERS


def values(samples, key):
    return [sample[key] for sample in samples if sample.get(key) is not None]


def middle(samples, key):
    seen = values(samples or [], key)
    return median(seen) if seen else None


def number(value):
    if value is None:
        return "–"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}"


def ratio(value, other):
    return f"{value / other:.2f}" if value is not None and other else "–"


class Table:
    """All rows: results[row id][network name] is a list of samples."""

    def __init__(self, rows, results, networks):
        self.rows, self.results, self.networks = rows, results, networks

    def middle(self, row, name, key=None):
        """The median of a row; without a key, of what the row is about."""
        return middle(self.results[row].get(name), key or self.rows[row].key)

    def best(self, row, key=None, lower=None):
        """The best of the peers."""
        lower = self.rows[row].lower if lower is None else lower
        seen = [value for name in PEERS if (value := self.middle(row, name, key)) is not None]
        return (min if lower else max)(seen) if seen else None

    def over_best(self, row):
        """rcon's figure over the best peer's; None when either lacks."""
        mine, best = self.middle(row, "rcon"), self.best(row)
        return mine / best if mine is not None and best else None

    def cell(self, row, name):
        samples = self.results[row].get(name)
        if samples is None:
            return ""
        seen = values(samples, self.rows[row].key)
        if not seen:
            return "failed"
        text = f"**{number(median(seen))}**"
        if len(seen) > 1:
            text += f" {number(min(seen))}–{number(max(seen))}"
        if self.rows[row].key == "gbps":
            text += f" · {number(middle(samples, 's_per_gb'))}"
            if name != "bare":
                text += f" ({number(middle(samples, 'relay_s_per_gb'))})"
        if (lost := middle(samples, "lost_percent")) is not None:
            text += f" · {lost:.0f} % lost"
        if name != "bare" and (each := middle(samples, "relay_us")) is not None:
            text += f" · ({number(each)} µs)"
        if failed := sum(values(samples, "failed")):
            text += f" · {failed} failed"
        if missing := sum("why" in sample for sample in samples):
            text += f" · {missing} of {len(samples)} runs failed"
        return text

    def lines(self):
        names = [name for name in self.networks]
        yield f"| | {' | '.join(names)} | rcon ÷ best peer | CPU, the same | rcon ÷ bare |"
        yield "|---" * (len(names) + 4) + "|"
        section = None
        for row, about in self.rows.items():
            if about.section != section:
                section = about.section
                yield f"| **{section}** |" + " |" * (len(names) + 3)
            cells = [self.cell(row, name) for name in names]
            mine = self.middle(row, "rcon")
            of_cpu = "–"
            if about.key == "gbps":
                of_cpu = ratio(self.middle(row, "rcon", "s_per_gb"), self.best(row, "s_per_gb", lower=True))
            of_bare = ratio(mine, self.middle(row, "bare") if self.results[row].get("bare") else None)
            yield f"| {about.title} | {' | '.join(cells)} | {ratio(mine, self.best(row))} | {of_cpu} | {of_bare} |"


def memory_lines(memories, idle):
    """The memory table, and KiB for one idle flow."""
    names = [name for name in memories]
    yield f"| resident memory of the relay, MiB (all helpers) | {' | '.join(names)} |"
    yield "|---" * (len(names) + 1) + "|"
    titles = []
    for seen in memories.values():
        titles += [title for title in seen if title not in titles]
    for title in titles:
        cells = []
        for seen in memories.values():
            at = seen.get(title)
            if at is None:
                cells.append("")
            elif "why" in at:
                cells.append("failed")
            else:
                text = f"{at['Pss'] / 1024:.1f} ({at['helpers'] / 1024:.1f})"
                if at.get("failed"):
                    text += f" · {at['failed']} failed"
                cells.append(text)
        yield f"| {title} | {' | '.join(cells)} |"
    for path in ("out", "lo"):
        cells = [number(per_flow(seen, path, idle)) for seen in memories.values()]
        yield f"| KiB for one idle flow, {path} | {' | '.join(cells)} |"


def per_flow(seen, path, idle):
    """KiB of the relay for one idle flow: what the flows added to what was there before them."""
    with_flows = seen.get(f"idle {path}", {}).get("Pss")
    before = seen.get("idle out ended", seen["fresh"]) if path == "lo" else seen["fresh"]
    if with_flows is None or "Pss" not in before:
        return None
    return (with_flows - before["Pss"]) / idle


def aims(table, memories, idle):
    """Each aim: words, the worst that was seen with its row, what is wanted, whether it was reached."""
    out = ["out-1", "out-4"]
    back = ["out-1-back", "out-4-back"]
    ports = [row for row in table.rows if row.startswith(("lo-", "lan-")) and row[-1] != "0" and is_tcp(table, row)]

    def peers(rows):
        return [(row, table.over_best(row)) for row in rows if row in table.rows]

    def against(rows, other, key=None):
        found = []
        for row in rows:
            if row in table.rows and (named := other(row)) is not None:
                mine = table.middle(row, "rcon", key)
                found.append((row, mine / named if mine is not None else None))
        return found

    def relay(rows):
        return [(row, table.middle(row, "rcon", "relay_s_per_gb")) for row in rows if row in table.rows]

    def full(row):
        return table.middle(row.removesuffix("-1500"), "rcon") if row.removesuffix("-1500") in table.rows else None

    short = [row for row in table.rows if row.endswith("-1500")]
    yield verdict("container → outside, ÷ best peer", peers(out), 3.0)
    yield verdict("container → outside, ÷ bare path", against(out, lambda row: table.middle(row, "bare")), 0.65)
    yield verdict("container ← outside, ÷ best peer", peers(back), 1.2)
    yield verdict("the relay's CPU out and in, s/GB", relay(out + back), 0.35, most=True)
    yield verdict("published ports, ÷ best peer", peers(ports), 1.0)
    yield verdict("the relay's CPU on published ports, s/GB", relay(ports), 0.2, most=True)
    yield verdict("published port while pipes are short, ÷ best peer", peers(["lo-short-pipes"]), 1.0)
    yield verdict("MTU 1500, ÷ MTU 65520", against(short, full), 0.75)
    yield verdict("connections a second, ÷ best peer", peers(r for r in table.rows if r.startswith("rate-")), 1.2)
    yield verdict("HTTP, ÷ best peer", peers(r for r in table.rows if r.startswith("http-")), 1.2)
    yield verdict("round trip, ÷ best peer", peers(r for r in table.rows if r.startswith("trip-")), 1.0, most=True)
    if "rcon" in memories:
        each = [(path, per_flow(memories["rcon"], path, idle)) for path in ("out", "lo")]
        yield verdict("one idle flow, KiB", each, 64.0, most=True)
    busy = against(["out-idle"], lambda _: table.middle("out-1", "rcon") if "out-1" in table.rows else None)
    yield verdict(f"{idle} idle flows beside a busy one, ÷ without", busy, 0.95)


def is_tcp(table, row):
    return table.rows[row].key == "gbps" and "udp" not in row and "pipes" not in row and not row.endswith("-1500")


def verdict(words, found, wanted, most=False):
    known = [(row, value) for row, value in found if value is not None]
    if not known:
        return {"aim": words, "wanted": wanted, "most": most, "worst": None, "row": None, "reached": None, "missed": []}
    missed = [(row, value) for row, value in known if (value > wanted if most else value < wanted)]
    row, value = (max if most else min)(known, key=lambda pair: pair[1])
    return {"aim": words, "wanted": wanted, "most": most, "worst": value, "row": row, "reached": not missed,
            "missed": [name for name, _ in missed]}  # fmt: skip


def aim_lines(verdicts):
    yield "| aim | wanted | worst seen | reached |"
    yield "|---|---|---|---|"
    for seen in verdicts:
        sign = "≤" if seen["most"] else "≥"
        worst = "not measured" if seen["worst"] is None else f"{number(seen['worst'])} ({seen['row']})"
        reached = {True: "yes", False: f"no: {', '.join(seen['missed'])}", None: "–"}[seen["reached"]]
        yield f"| {seen['aim']} | {sign} {seen['wanted']} | {worst} | {reached} |"
