"""Long computations for one client do not hold up the others."""

import threading
from typing import Any

import pytest
from serving import Serving

from charlm.server import bodies, requests, tokenizer_routes
from charlm.server.threads import LONG

FUNCTIONS = {
    "/v1/completions": (requests, "read_prompt", "prompt"),
    "/tokenize": (tokenizer_routes, "encode", "prompt"),
    "/detokenize": (tokenizer_routes, "text_and_offsets", "tokens"),
}
"""Routes with the function of a module that handles a field."""


@pytest.mark.parametrize("path", FUNCTIONS)
def test_long_bodies_are_handled_in_threads(
    path: str, server: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, name, field = FUNCTIONS[path]
    threads: dict[str, str] = {}

    def record(module: Any, name: str) -> None:
        function = getattr(module, name)

        def recording(*values: Any) -> Any:
            threads[name] = threading.current_thread().name
            return function(*values)

        monkeypatch.setattr(module, name, recording)

    record(module, name)
    record(bodies, "parse_body")
    for count in (1, LONG + 1):
        threads.clear()
        content = [5] * count if field == "tokens" else "a" * count
        answer = server.client.post(path, json={field: content})
        assert answer.status_code == 200
        in_thread = {each.startswith("asyncio") for each in threads.values()}
        assert (len(threads), in_thread) == (2, {count > 1})
