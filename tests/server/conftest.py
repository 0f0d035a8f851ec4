"""Fixtures of the tests of the server: one server that all of them share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Serving, serving

from charlm.api.loading import load
from charlm.server.service import Service

SMALL_RUN = Path(__file__).parents[1] / "fixtures" / "format-1"
"""A run of a few units, over other characters than the built-in model."""


@pytest.fixture(scope="session")
def service() -> Service:
    """Return the built-in model, the default, and a small one beside it."""
    return Service([load("tales", threads=1), load(SMALL_RUN, threads=1)])


@pytest.fixture(scope="session")
def server(service: Service) -> Iterator[Serving]:
    """Serve the models; `server.client` is an httpx client for it."""
    with serving(service) as running:
        yield running
