"""The group that looks at what others on the source feel of an export: pgbench beside it."""

import math
import re
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

import peers
from bench import Bench
from exporting import DAY, MESSAGES_OF_DAY, Outputs
from feeds import MESSAGES
from measuring import Failed, measure
from report import Section, Table

DATABASE = "pgbench"
CLIENTS = 2
# So small that all of it is in memory, so large that two clients do not wait for each other.
BENCH_SCALE = 10
LOGGED_SHARE = 0.1
SETTLING_SECONDS = 0.3


@dataclass(frozen=True)
class Felt:
    """What one pgbench run said, and how long the export beside it took."""

    per_second: float
    average_milliseconds: float
    percentile_95_milliseconds: float
    export_seconds: Optional[float]
    # Transactions that the time of the export had less than as much time after it.
    lost: Optional[float]


@dataclass(frozen=True)
class Beside:
    """What runs beside pgbench: steps of one export, or nothing."""

    name: str
    steps: Callable[[], Optional[list]]


def beside(bench: Bench) -> Section:
    """Transactions of two clients while the same day is exported."""
    bench.source.create_database(DATABASE)
    initialise = ("pgbench", "-i", "-q", "-s", str(BENCH_SCALE), bench.source.url(DATABASE))
    subprocess.run(initialise, check=True, capture_output=True)
    outputs = Outputs(bench)

    def pgslice(jobs: int) -> list:
        feed = bench.feed("beside", MESSAGES)
        feed.forget()
        return [[feed.export(DAY, DAY, jobs)]]

    def psql() -> list:
        return [[peers.copy_out(bench.source, MESSAGES_OF_DAY.query, peers.ZSTD, outputs.fresh() / "day.copy.zst")]]

    # Long enough for the slowest of them, which two busy clients hold up.
    seconds = math.ceil(3 * measure(psql()).seconds + 2)
    contenders = [
        Beside("nothing", lambda: None),
        Beside("psql | zstd -3", psql),
        Beside("pgslice, jobs = 1", lambda: pgslice(1)),
        Beside("pgslice, jobs = 2", lambda: pgslice(2)),
    ]
    felt = {contender.name: [] for contender in contenders}
    for number in range(bench.settings.rounds):
        for contender in contenders if number % 2 == 0 else reversed(contenders):
            felt[contender.name].append(_run(bench, contender, seconds))
    bench.source.drop_database(DATABASE)
    return _section(felt, seconds, bench)


def _run(bench: Bench, contender: Beside, seconds: int) -> Felt:
    log = bench.folder / "pgbench"
    log.mkdir(exist_ok=True)
    arguments = ["pgbench", "-n", "-S", "-M", "prepared", "-c", str(CLIENTS), "-T", str(seconds)]
    arguments += ["-l", f"--log-prefix={log}/log", f"--sampling-rate={LOGGED_SHARE}", bench.source.url(DATABASE)]
    steps = contender.steps()
    running = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    began = time.time()
    try:
        export_seconds = measure(steps).seconds if steps else None
    finally:
        said, _ = running.communicate()
    per_second = re.search(r"tps = ([\d.]+)", said)
    average = re.search(r"latency average = ([\d.]+) ms", said)
    if running.returncode != 0 or not per_second or not average:
        raise Failed(f"pgbench: {said.strip()}")
    if export_seconds is not None and export_seconds > seconds:
        raise Failed(f"the export took longer than pgbench's {seconds} s")
    transactions = _logged(log)
    percentile_95 = statistics.quantiles([latency for _, latency in transactions], n=20)[-1] / 1000
    lost = _lost([ended for ended, _ in transactions], began, export_seconds) if export_seconds else None
    return Felt(float(per_second[1]), float(average[1]), percentile_95, export_seconds, lost)


def _logged(log: Path) -> list:
    """The transactions in pgbench's logs, which are removed: when each ended, and its microseconds.

    The fields: client, number, microseconds, script, and the end in seconds and microseconds of the epoch.
    """
    transactions = []
    for path in log.iterdir():
        for line in path.read_text().splitlines():
            _, _, latency, _, seconds, microseconds = line.split()[:6]
            transactions.append((int(seconds) + int(microseconds) / 1e6, int(latency)))
        path.unlink()
    return transactions


def _lost(ends: list, began: float, export_seconds: float) -> float:
    """Within one run of pgbench: from one run to the next its pace changes by more than an export costs."""

    def per_second(start: float, end: float) -> float:
        return sum(start <= ended < end for ended in ends) / LOGGED_SHARE / (end - start)

    export_ended = began + export_seconds
    # The server's sessions end a moment after the export.
    after = per_second(export_ended + SETTLING_SECONDS, max(ends) - SETTLING_SECONDS)
    return (after - per_second(began, export_ended)) * export_seconds


def _section(felt: dict, seconds: int, bench: Bench) -> Section:
    def median(name: str, of: str) -> float:
        return statistics.median(getattr(one, of) for one in felt[name])

    lost = {name: median(name, "lost") for name in felt if name != "nothing"}
    allowed = lost["psql | zstd -3"]
    section = Section()
    for name in ("pgslice, jobs = 1", "pgslice, jobs = 2"):
        measured = f"{lost[name]:,.0f} against {allowed:,.0f}"
        what = f"pgbench beside an export: transactions lost per export, {name}"
        section.add_judged(what, "no more than beside `psql | zstd`", measured, lost[name] <= allowed)
    lines = [
        (
            name,
            f"{median(name, 'per_second'):,.0f}",
            f"{median(name, 'average_milliseconds'):.3f}",
            f"{median(name, 'percentile_95_milliseconds'):.3f}",
            f"{lost[name]:,.0f}" if name in lost else "",
            f"{median(name, 'export_seconds'):.2f}" if name in lost else "",
        )
        for name in felt
    ]
    head = ("beside", "transactions a second", "average ms", "95 % within ms", "lost per export", "an export's seconds")
    note = (
        f"`pgbench -S -M prepared -c {CLIENTS} -T {seconds}` on the same server, medians of {bench.settings.rounds};"
        " the export of the day of messages begins with it. Lost is what the seconds of the export had less than as many"
        " seconds after it in the same run."
    )
    section.tables.append(Table("What others feel of an export", head, lines, note))
    section.raw["What others feel of an export"] = {name: [vars(one) for one in ones] for name, ones in felt.items()}
    for line in lines:
        bench.say(f"   {line[0]:<24} {line[1]:>10} transactions a second, {line[4] or 'none'} lost per export")
    return section
