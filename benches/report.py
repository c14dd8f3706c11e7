"""Figures against their targets, and tables, as Markdown."""

from dataclasses import dataclass, field
from typing import Optional

from measuring import MIB, Result, failure_of


@dataclass(frozen=True)
class Figure:
    """One line of what is to be reached."""

    what: str
    target: str
    measured: str
    # `None` where nothing is to be reached.
    reached: Optional[bool]


@dataclass(frozen=True)
class Table:
    """Cells by line, below a heading."""

    title: str
    head: tuple
    lines: list
    note: str = ""


@dataclass
class Section:
    """What a group of measurements found."""

    figures: list = field(default_factory=list)
    tables: list = field(default_factory=list)
    failures: list = field(default_factory=list)
    raw: dict = field(default_factory=dict)

    def add_race(self, title: str, results: dict, note: str = ""):
        """The table of a race, its raw costs, and its failures."""
        head = ("", "seconds", "client CPU s", "server CPU s", "peak MiB", "stored MB", "rounds")
        self.tables.append(Table(title, head, [_race_line(result) for result in results.values()], note))
        self.raw[title] = {
            name: {"failure": result.failure, "costs": [vars(cost) for cost in result.costs]}
            for name, result in results.items()
        }
        self.failures += [
            f"{title}: {name}: {result.failure}"
            for name, result in results.items()
            if result.failure and not result.is_missing
        ]

    def add_ratio(self, what: str, target: float, result: Result, against: Result, of: str = "seconds", times: int = 1):
        """The ratio of two medians, which is to be `target` or less."""
        if lost := next((name for name in (result, against) if not name.costs), None):
            self.figures.append(Figure(what, f"≤ {target:.2f}", failure_of(lost), None if lost.is_missing else False))
            return
        ratio = result.median(of) / (times * against.median(of))
        self.figures.append(Figure(what, f"≤ {target:.2f}", f"{ratio:.2f}", round(ratio, 2) <= target))

    def add_limit(self, what: str, limit: float, unit: str, value: Optional[float]):
        """A value that is to be `limit` or less."""
        if value is None:
            self.figures.append(Figure(what, f"≤ {limit:g} {unit}", "failed", False))
        else:
            self.figures.append(Figure(what, f"≤ {limit:g} {unit}", f"{value:.0f} {unit}", round(value) <= limit))

    def add_same(self, what: str, values: list):
        """Values that are to be equal."""
        self.add_judged(what, "the same", ", ".join(map(str, values)), len(set(values)) == 1)

    def add_judged(self, what: str, target: str, measured: str, reached: bool):
        self.figures.append(Figure(what, target, measured, reached))

    def add_statement(self, what: str, measured: str):
        """A value that is only stated."""
        self.figures.append(Figure(what, "stated", measured, None))


def spread(result: Result) -> str:
    return f"{result.median():.2f} ({min(result.seconds):.2f} to {max(result.seconds):.2f})"


def _race_line(result: Result) -> tuple:
    if result.failure is not None:
        return (result.name, failure_of(result), "", "", "", "", "")
    stored = "" if result.stored_bytes is None else f"{result.stored_bytes / 1e6:.1f}"
    return (
        result.name,
        spread(result),
        f"{result.median('client_cpu_seconds'):.2f}",
        f"{result.median('server_cpu_seconds'):.2f}",
        f"{result.peak_bytes() / MIB:.0f}",
        stored,
        str(len(result.costs)),
    )


def _markdown_table(head: tuple, lines: list) -> str:
    def cells(of) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in of) + " |"

    return "\n".join([cells(head), "|" + "---|" * len(head), *map(cells, lines)])


def _figure_line(figure: Figure) -> tuple:
    reached = {True: "yes", False: "**no**", None: ""}[figure.reached]
    return (figure.what, figure.target, figure.measured, reached)


def markdown(circumstances: str, sections: list) -> str:
    """The chapter, from what was measured where to the tables."""
    figures = [_figure_line(figure) for section in sections for figure in section.figures]
    texts = [circumstances, _markdown_table(("figure", "target", "measured", "reached"), figures)]
    for table in (table for section in sections for table in section.tables):
        texts += [f"### {table.title}", _markdown_table(table.head, table.lines)] + ([table.note] if table.note else [])
    return "\n\n".join(texts)


def replace_between(text: str, begin: str, end: str, chapter: str) -> str:
    """The document with another chapter between two lines that are in it."""
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{chapter}\n\n{end}{after}"
