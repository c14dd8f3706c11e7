"""Runs programs, alone and in pipelines, and tells what they cost.

Each program runs under GNU time, which is small: what the kernel reports as a process's peak memory includes the
program that started it, and Python's would hide that of psql.
"""

import os
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Optional

MIB = 1 << 20


class Failed(Exception):
    """A contestant that did not do what it was asked; the text says why."""


class Missing(Failed):
    """A contestant whose program this machine does not have: nobody's fault."""


@dataclass(frozen=True)
class Command:
    """A program with its arguments, and what it finds in its environment beside ours."""

    arguments: tuple
    environment: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Pipeline:
    """Programs that feed each other, the first from `source`, the last into `target`."""

    commands: tuple
    source: Optional[Path] = None
    target: Optional[Path] = None


@dataclass(frozen=True)
class Cost:
    """What a piece of work took. CPU of programs includes their children's; memory is in bytes."""

    seconds: float
    client_cpu_seconds: float
    server_cpu_seconds: float
    # Each program at its own peak, added up over those that ran at the same time.
    peak_bytes: int
    # By program.
    cpu_seconds_of: dict


class _Running:
    """The programs of one pipeline. `folder` takes what GNU time and the programs have to say."""

    def __init__(self, pipeline: Pipeline, folder: Path):
        self.folder = folder
        self.names = [Path(command.arguments[0]).name for command in pipeline.commands]
        self.processes = []
        source = open(pipeline.source or os.devnull, "rb")
        for place, command in enumerate(pipeline.commands):
            is_last = place + 1 == len(pipeline.commands)
            with open(self._errors(place), "wb") as errors, open(pipeline.target or os.devnull, "wb") as target:
                process = subprocess.Popen(
                    ["time", "-q", "-o", self._figures(place), "-f", "%U %S %M", *command.arguments],
                    stdin=source,
                    stdout=target if is_last else subprocess.PIPE,
                    stderr=errors,
                    env={**os.environ, **command.environment},
                )
            source.close()
            source = process.stdout
            self.processes.append(process)

    def _figures(self, place: int) -> Path:
        return self.folder / f"{place}.figures"

    def _errors(self, place: int) -> Path:
        return self.folder / f"{place}.errors"

    def wait(self):
        """Waits for all of them. Names the last that failed: what feeds it fails with it."""
        statuses = [process.wait() for process in self.processes]
        for place, status in reversed(list(enumerate(statuses))):
            if status != 0:
                said = self._errors(place).read_text(errors="replace").strip().splitlines()
                raise Failed(f"{self.names[place]} ended with status {status}: {said[-1] if said else 'no word'}")

    def costs(self):
        """Per program: name, CPU seconds, peak bytes."""
        for place, name in enumerate(self.names):
            user, system, kibibytes = self._figures(place).read_text().split()
            yield name, float(user) + float(system), int(kibibytes) * 1024


def measure(steps: list, clusters=()) -> Cost:
    """Runs the steps one after another, the pipelines of a step side by side."""
    server_cpu = -sum(cluster.cpu_seconds() for cluster in clusters)
    cpu_seconds_of = {}
    peak_bytes = 0
    seconds = 0.0
    for step in steps:
        step_seconds, costs = _run_step(step)
        seconds += step_seconds
        peak_bytes = max(peak_bytes, sum(peak for _, _, peak in costs))
        for name, cpu_seconds, _ in costs:
            cpu_seconds_of[name] = cpu_seconds_of.get(name, 0.0) + cpu_seconds
    # A server process ends a moment after its client; its time counts when it has ended.
    time.sleep(0.1)
    server_cpu += sum(cluster.cpu_seconds() for cluster in clusters)
    return Cost(seconds, sum(cpu_seconds_of.values()), server_cpu, peak_bytes, cpu_seconds_of)


def _run_step(step: list):
    """Seconds, and the costs of the programs of all its pipelines."""
    with ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in step]
        began = time.perf_counter()
        running = [_Running(pipeline, folder) for pipeline, folder in zip(step, folders)]
        try:
            for pipeline in running:
                pipeline.wait()
        finally:
            # When one of them failed, the others come to their ends first.
            for process in (process for pipeline in running for process in pipeline.processes):
                process.wait()
        seconds = time.perf_counter() - began
        return seconds, [cost for pipeline in running for cost in pipeline.costs()]


def run(steps: list):
    """Runs what is not measured."""
    measure(steps)


@dataclass
class Contestant:
    """One way to do what others do as well."""

    name: str
    # Makes a fresh place, and returns the steps that are measured.
    prepare: Callable[[], list]
    # Called after each run: checks what came out where that is cheap, removes it, returns the bytes it took or None.
    finish: Callable[[], Optional[int]]
    # For those that take long and are no figure's measure; they have no round that does not count either.
    at_most_rounds: Optional[int] = None


@dataclass
class Result:
    """What a contestant did."""

    name: str
    costs: list = field(default_factory=list)
    stored_bytes: Optional[int] = None
    failure: Optional[str] = None
    is_missing: bool = False

    @property
    def seconds(self) -> list:
        return [cost.seconds for cost in self.costs]

    def median(self, of: str = "seconds") -> float:
        return statistics.median(getattr(cost, of) for cost in self.costs)

    def peak_bytes(self) -> int:
        return max(cost.peak_bytes for cost in self.costs)

    def cpu_seconds_of(self, program: str) -> float:
        return statistics.median(cost.cpu_seconds_of[program] for cost in self.costs)


class Race:
    """Contestants that take turns: one round that does not count, then `rounds`, each in another order."""

    def __init__(self, rounds: int, warm: bool, clusters: tuple, say: Callable[[str], None]):
        self.rounds = rounds
        self.warm = warm
        self.clusters = clusters
        self.say = say

    def run(self, contestants: list, before_round: Callable[[], None] = lambda: None, warm: Optional[bool] = None):
        results = {contestant.name: Result(contestant.name) for contestant in contestants}
        first = 0 if (self.warm if warm is None else warm) else 1
        for number in range(first, self.rounds + 1):
            before_round()
            order = contestants[number % len(contestants) :] + contestants[: number % len(contestants)]
            for contestant in order if number % 2 == 0 else reversed(order):
                result = results[contestant.name]
                if result.failure is None and self._takes_part(contestant, number):
                    self._turn(contestant, result, counts=number > 0)
        for result in results.values():
            self.say(f"   {result.name:<44} {summary(result)}")
        return results

    def _takes_part(self, contestant: Contestant, number: int) -> bool:
        if contestant.at_most_rounds is None:
            return True
        return 1 <= number <= contestant.at_most_rounds

    def _turn(self, contestant: Contestant, result: Result, counts: bool):
        try:
            steps = contestant.prepare()
            os.sync()
            cost = measure(steps, self.clusters)
            result.stored_bytes = contestant.finish()
        except (Failed, OSError, subprocess.SubprocessError) as failure:
            result.failure = str(failure)
            result.is_missing = isinstance(failure, Missing)
            return
        if counts:
            result.costs.append(cost)


def summary(result: Result) -> str:
    if result.failure is not None:
        return failure_of(result)
    return (
        f"{result.median():7.2f} s  ({min(result.seconds):.2f} to {max(result.seconds):.2f})"
        f"  client CPU {result.median('client_cpu_seconds'):6.2f} s"
        f"  server CPU {result.median('server_cpu_seconds'):6.2f} s  peak {result.peak_bytes() / MIB:5.0f} MiB"
    )


def failure_of(result: Result) -> str:
    return f"{'left out' if result.is_missing else 'failed'}: {result.failure}"
