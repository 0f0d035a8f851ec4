"""Many clients at once: each answer is the one that the request has alone (W-15, W-18)."""

import asyncio
import itertools

from serving import Serving
from waiting import wait_until

from load_requests import MIX
from load_server import Limits, Tally, answers_alone, drive


def test_64_clients_get_the_answers_they_have_alone(server: Serving) -> None:
    """Streamed or not, while others leave in the middle and send requests that are refused."""
    jobs = [kind.job(variant) for variant in range(11) for kind in MIX if variant < kind.variants]
    port, tally, order = server.server.listener.getsockname()[1], Tally(), itertools.cycle(jobs)

    async def ask() -> None:
        alone = await answers_alone(port, jobs)
        await drive(port, tally, Limits(64, lambda _: next(order), alone, requests=len(jobs)))

    asyncio.run(ask())
    assert not tally.wrong
    assert set(tally.seconds) == {kind.name for kind in MIX}
    wait_until(lambda: server.client.get("/health").json()["rows"] == 0)
