"""Load a server of this checkout and print the tables of RESULTS.md; it is started by this script.

    python scripts/load_server.py load [--clients 16 64] [--seconds 60]
    python scripts/load_server.py cost [--clients 16] [--seconds 60]
    python scripts/load_server.py soak [--requests 100000]
    python scripts/load_server.py start

`load`: mixed requests, among them readers that leave and requests that are wrong. Each answer is
compared with the answer to the same request when it was alone, streamed or not. `cost`: processor
time of the server for each kind of request, with 64 rows and with one, in turns. `soak`: memory,
files and latencies over many requests. `start`: time from the command to the first answer. Exits
with 1 if a request was not answered as promised. Arguments after `--` go to `charlm serve`.
"""

import argparse
import asyncio
import random
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from charlm.report.tables import plain_table
from load_requests import COSTS, MIX, Connection, Job, Kind, Reply
from server_process import Server


@dataclass
class Tally:
    """Counts and times of the requests of one setting."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    wrong: Counter[str] = field(default_factory=Counter)
    memory: list[float] = field(default_factory=list)

    def add(self, job: Job, reply: Reply, alone: dict[bytes, Any]) -> None:
        """Count one request, and what is wrong with its answer."""
        self.seconds[job.kind].append(reply.seconds)
        if reply.status not in job.statuses:
            self.wrong[f"{job.kind}: status {reply.status}"] += 1
        elif job.key and reply.content != alone[job.key]:
            self.wrong[f"{job.kind}: not the answer it has alone"] += 1

    @property
    def requests(self) -> int:
        """Number of requests."""
        return sum(map(len, self.seconds.values()))


@dataclass
class Limits:
    """How much is asked, by how many clients, and what: `pick` draws a job."""

    clients: int
    pick: Callable[[random.Random], Job]
    alone: dict[bytes, Any]
    """Right answers, by the keys of the jobs."""
    seconds: float = float("inf")
    requests: float = float("inf")


async def answers_alone(port: int, jobs: list[Job]) -> dict[bytes, Any]:
    """Return the answers to compare with: each asked when there is no other request, as a whole."""
    connection, found = Connection(port), {}
    for job in jobs:
        if job.key and job.key not in found:
            reply = await connection.send(job.whole())
            found[job.key] = reply.content
    connection.close()
    return found


async def drive(port: int, tally: Tally, limits: Limits, server: Server | None = None) -> None:
    """Keep all clients busy until a limit is reached; note the memory of a server at intervals."""
    end = time.monotonic() + limits.seconds

    async def client(number: int) -> None:
        draws, connection = random.Random(number), Connection(port)
        while time.monotonic() < end and tally.requests < limits.requests:
            job = limits.pick(draws)
            try:
                tally.add(job, await connection.send(job), limits.alone)
            except (OSError, EOFError) as error:
                tally.wrong[f"{job.kind}: {type(error).__name__}: {error}"] += 1
                connection.close()
        connection.close()

    async def watch(server: Server) -> None:
        while True:
            tally.memory.append(server.memory())
            await asyncio.sleep(0.5)

    watching = asyncio.create_task(watch(server)) if server else None
    await asyncio.gather(*(client(number) for number in range(limits.clients)))
    if watching:
        watching.cancel()


def draws_of(*kinds: Kind) -> tuple[list[Job], Callable[[random.Random], Job]]:
    """Return all jobs of some kinds, and a function that draws one by the kinds' weights."""
    jobs = [[kind.job(variant) for variant in range(kind.variants)] for kind in kinds]
    weights = [kind.weight for kind in kinds]

    def pick(draws: random.Random) -> Job:
        return draws.choice(draws.choices(jobs, weights)[0])

    return [job for some in jobs for job in some], pick


def percentile(values: list[float], fraction: float) -> float:
    """Return the value below which a fraction of the values lies."""
    return sorted(values)[min(len(values) - 1, int(fraction * len(values)))]


async def settle(server: Server) -> dict[str, Any]:
    """Return /health when no row is left, or after two seconds."""
    for _ in range(20):
        health = server.health()
        if not health["rows"] and not health["waiting"]:
            break
        await asyncio.sleep(0.1)
    return health


async def load(options: argparse.Namespace) -> bool:
    """Print a table for each number of clients; return whether all was as promised."""
    jobs, pick = draws_of(*MIX)
    good = True
    for clients in options.clients:
        with Server(*options.serve) as server:
            alone = await answers_alone(server.port, jobs)
            files, used, begun = server.files(), server.cpu(), time.monotonic()
            tally = Tally()
            await drive(server.port, tally, Limits(clients, pick, alone, options.seconds), server)
            seconds, cpu = time.monotonic() - begun, server.cpu() - used
            health = await settle(server)
            left = server.files() - files
            bad = server.bad_lines()
        table = plain_table("<request", "answered", "median ms", "99 % ms", "slowest ms")
        for kind in MIX:
            times = [1000 * value for value in tally.seconds[kind.name]]
            if times:
                table.add_row(kind.name, f"{len(times):,}", f"{statistics.median(times):.1f}",
                              f"{percentile(times, 0.99):.0f}", f"{max(times):.0f}")  # fmt: skip
        third = len(tally.memory) // 3
        early = statistics.median(tally.memory[third : 2 * third])
        late = statistics.median(tally.memory[-third:])
        show(table)
        print(f"{clients} clients, {seconds:.0f} s: {tally.requests:,} requests, "
              f"{tally.requests / seconds:,.0f} requests/s, "
              f"{1000 * cpu / tally.requests:.2f} ms of the processor each "
              f"({100 * cpu / seconds:.0f} % busy); memory {early:.1f} MB in the second third, "
              f"{late - early:+.1f} MB in the last; {left:+d} files; "
              f"{health['rows']} rows and {health['waiting']} requests left")  # fmt: skip
        good &= report_wrong(tally, bad) and not health["rows"] and left <= 1
    return good


def report_wrong(tally: Tally, bad: Sequence[str] = ()) -> bool:
    """Print what was not as promised; return whether there is nothing."""
    for what, count in tally.wrong.most_common(20):
        print(f"WRONG: {count:,} x {what}")
    for line in bad[:5]:
        print(f"WRONG: in the log: {line}")
    if not tally.wrong and not bad:
        print("no answer was wrong, none was another than alone; no traceback in the log")
    return not tally.wrong and not bad


async def cost(options: argparse.Namespace) -> bool:
    """Print the processor time of a request of each kind with 64 rows and one, in turns."""
    clients, turn = options.clients[0], options.seconds / len(COSTS) / 2 / 3
    table = plain_table("<request", "--rows 1", "--rows 64", "gain", "tokens per CPU second",
                        "median ms, 1", "median ms, 64")  # fmt: skip
    good = True
    with (
        Server("--rows", "1", *options.serve) as one,
        Server("--rows", "64", *options.serve) as many,
    ):
        for kind in COSTS:
            jobs, pick = draws_of(kind)
            alone = await answers_alone(one.port, jobs)
            tallies, cpus = (Tally(), Tally()), [0.0, 0.0]
            for _ in range(3):
                for at, server in enumerate((one, many)):
                    used = server.cpu()
                    await drive(server.port, tallies[at], Limits(clients, pick, alone, turn))
                    cpus[at] += server.cpu() - used
            each = [1000 * used / tally.requests for used, tally in zip(cpus, tallies, strict=True)]
            waits = [1000 * statistics.median(tally.seconds[kind.name]) for tally in tallies]
            per_second = f"{kind.tokens / each[1] * 1000:,.0f}" if kind.tokens else ""
            table.add_row(kind.name, f"{each[0]:.2f} ms", f"{each[1]:.2f} ms",
                          f"{each[0] / each[1]:.2f}", per_second,
                          *(f"{wait:.1f}" for wait in waits))  # fmt: skip
            wrong = sum((tally.wrong for tally in tallies), Counter[str]())
            good &= not wrong or report_wrong(Tally(wrong=wrong))
    show(table)
    print(f"server processor time a request, {clients} clients")
    return good


async def soak(options: argparse.Namespace) -> bool:
    """Send many short requests; compare memory, files and latencies early and late."""
    jobs, pick = draws_of(*MIX)
    with Server(*options.serve) as server:
        alone = await answers_alone(server.port, jobs)
        files, begun, used = server.files(), time.monotonic(), server.cpu()
        tenths = []
        for tenth in range(10):
            tally = Tally()
            goal = options.requests // 10
            limits = Limits(options.clients[0], pick, alone, requests=goal)
            await drive(server.port, tally, limits, server)
            tenths.append(tally)
            if tally.wrong:
                break
            times = [value for some in tally.seconds.values() for value in some]
            print(f"{(tenth + 1) * goal:>9,} requests, {time.monotonic() - begun:6.0f} s: "
                  f"{server.memory():.1f} MB, {server.files() - files:+d} files, "
                  f"median {1000 * statistics.median(times):.1f} ms, "
                  f"99 % {1000 * percentile(times, 0.99):.0f} ms", flush=True)  # fmt: skip
        seconds = time.monotonic() - begun
        health = await settle(server)
        left, bad = server.files() - files, server.bad_lines()
        total = sum(tally.requests for tally in tenths)
        early, late = (statistics.median(tally.memory) for tally in (tenths[:2][-1], tenths[-1]))
        print(f"{total:,} requests in {seconds:.0f} s; memory {late - early:+.2f} MB from the "
              f"second tenth to the last; {left:+d} files; "
              f"{1000 * (server.cpu() - used) / total:.2f} ms of the processor each")  # fmt: skip
    whole = Tally(wrong=sum((tally.wrong for tally in tenths), Counter()))
    return report_wrong(whole, bad) and left <= 1 and not health["rows"]


async def start(options: argparse.Namespace) -> bool:
    """Print the time from the command to the line on stdout, and to the first answer."""
    lines, answers, cpus = [], [], []
    for _ in range(7):
        begun = time.perf_counter()
        with Server(*options.serve) as server:
            lines.append(server.seconds)
            server.health()
            answers.append(time.perf_counter() - begun)
            cpus.append(server.cpu())
    print(f"start: line on stdout after {statistics.median(lines):.2f} s, GET /health answered "
          f"after {statistics.median(answers):.2f} s (medians of {len(lines)}; fastest "
          f"{min(answers):.2f} s), {statistics.median(cpus):.2f} s of the processor")  # fmt: skip
    return True


def show(table: Any) -> None:
    """Print a table."""
    Console(width=120, highlight=False).print(table)


MODES: dict[str, Callable[[argparse.Namespace], Coroutine[Any, Any, bool]]] = {
    "load": load, "cost": cost, "soak": soak, "start": start,
}  # fmt: skip


def main() -> None:
    """Measure as asked. Exits with 1 if something was not as promised."""
    own, _, rest = (list(part) for part in _split(sys.argv[1:]))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--clients", type=int, nargs="+", default=None)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--requests", type=int, default=100_000)
    options = parser.parse_args(own)
    options.clients = options.clients or ([16, 64] if options.mode == "load" else [16])
    options.serve = rest or ["--run", "tales"]
    if not asyncio.run(MODES[options.mode](options)):
        raise SystemExit(1)


def _split(arguments: list[str]) -> tuple[list[str], list[str], list[str]]:
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at : at + 1], arguments[at + 1 :]


if __name__ == "__main__":
    main()
