"""Measure the scheduler of rows: CPU time per request, with 64 rows beside 1 row.

    python scripts/bench_rows.py [--run tales] [--clients 16] [--rounds 5] [--weights int8]

Clients each send their next request when the last one is answered. No HTTP is involved (see
scripts/load_server.py). Rounds of both take turns in one process; the numbers are medians of its
CPU time.
"""

import argparse
import statistics
import threading
import time
from dataclasses import replace

import numpy as np

from charlm.api.loading import load_model
from charlm.api.model import Model
from charlm.inference.rows import Rows
from charlm.inference.samplers import Sampling
from charlm.inference.work import Event, Failed, Finished, NewText, Work

KINDS: dict[str, Work] = {
    "100 tokens": Work(prompts=(), max_tokens=100),
    "1,000 tokens": Work(prompts=(), max_tokens=1000),
    "100 tokens, top_p 0.9": Work(prompts=(), max_tokens=100, sampling=Sampling(top_p=0.9)),
    "100 tokens, 5 alternatives": Work(prompts=(), max_tokens=100, top=5),
    "score 100 tokens, 1 alternative": Work(prompts=(), max_tokens=1, top=1, score_prompts=True),
    "1 token": Work(prompts=(), max_tokens=1),
}
"""Requests that are measured, without their prompts."""


class Client:
    """A client that sends requests one after another."""

    def __init__(self, rows: Rows, works: list[Work]) -> None:
        self.rows, self.works = rows, works
        self.done, self.events, self.tokens = threading.Event(), 0, 0
        self.next()

    def next(self) -> None:
        """Send the next request."""
        if self.works:
            self.rows.submit(self.works.pop(), self.listen)
        else:
            self.done.set()

    def listen(self, event: Event) -> None:
        """Count an event; the last one of a request makes the next request."""
        self.events += 1
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, NewText):
            self.tokens += event.count
        if isinstance(event, Finished):
            self.next()


def measure(
    model: Model, kind: Work, rows: int, clients: int, requests: int
) -> tuple[float, float]:
    """Return milliseconds of CPU time, and events, per request."""
    text = (
        "The dog found a pale bee. Why must we paint the urns? said the old lady to the king " * 2
    )
    ids = model.vocabulary.encode(text).astype(np.int64)
    count = 100 if kind.score_prompts else 20
    scheduler = Rows(model.run.backend, model.vocabulary, model.run.boundaries, rows=rows)
    works = [
        [
            replace(kind, prompts=(ids[number : number + count],), seed=1000 * client + number)
            for number in range(requests // clients)
        ]
        for client in range(clients)
    ]
    begin = time.process_time()
    users = [Client(scheduler, own) for own in works]
    for user in users:
        user.done.wait()
    seconds = time.process_time() - begin
    scheduler.stop()
    scheduler.join()
    count = clients * (requests // clients)
    return 1000 * seconds / count, sum(user.events for user in users) / count


def main() -> None:
    """Measure every kind of request and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="tales")
    parser.add_argument("--weights", default="fp32")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kind", default="")
    options = parser.parse_args()
    model = load_model(options.run, threads=1, weights=options.weights)
    print(
        f"{options.run}, {model.run.backend.name}, {options.clients} clients, ms of CPU a request"
    )
    print(f"{'':32} rows 1  rows 64   gain  events")
    for name, kind in KINDS.items():
        if options.kind not in name:
            continue
        requests = 4 * options.clients if kind.max_tokens < 1000 else options.clients
        ones, sixtyfours, events = [], [], 0.0
        for _ in range(options.rounds):
            ones.append(measure(model, kind, 1, options.clients, requests)[0])
            spent, events = measure(model, kind, 64, options.clients, requests)
            sixtyfours.append(spent)
        one, many = statistics.median(ones), statistics.median(sixtyfours)
        print(f"{name:32} {one:6.2f}  {many:7.2f}  {one / many:5.2f}  {events:6.1f}", flush=True)


if __name__ == "__main__":
    main()
