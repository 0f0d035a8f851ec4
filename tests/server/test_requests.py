"""Requests for completions: every field is checked, and nothing is misread."""

import json

import numpy as np
import pytest
from helpers import vocabulary_of

from charlm.server.errors import Refused
from charlm.server.requests import FIELDS, read_completion, read_fields
from charlm.text.boundaries import STREAM, Boundaries
from charlm.text.direction import BackwardVocabulary
from charlm.text.tokenizers.tokenizer_json import EOS

VOCABULARY = vocabulary_of("aabbcdefghijklmnopqrstuvwxyz \n")
LINES = Boundaries(document="line")
HUGE = 2**70

WRONG = {
    "model": [5, ["tales"], {}],
    "prompt": [
        [], [[]], ["a", 5], [1.5], [True], {"a": 1}, 7, [[1], "a"], [None], [[1], []], ["a"] * 2049,
        True, 1.5,
    ],
    "max_tokens": [-1, 10**12, HUGE, "5", 2.5, 2.0, True, [1]],
    "temperature": [-0.1, 100.1, "1", [1], True, HUGE],
    "top_p": [0, 0.0, 1.5, -0.1, "1", False],
    "top_k": [-1, 1.0, "3", 10**7],
    "min_p": [-0.1, 1.1, "0"],
    "n": [0, -1, 129, HUGE, "2", 1.5, True],
    "best_of": [0, 129, "2"],
    "seed": [2**63, -(2**63) - 1, "1", 1.5, True],
    "stop": ["", ["a", ""], ["x"] * 17, ["y" * 257], [5], 7, {"a": "b"}, [None], [["a"]]],
    "echo": ["true", 1, 0, "no"],
    "logprobs": [21, -1, 1.5, "5", True, HUGE],
    "logit_bias": [
        [], 5, "a", {"a": 1}, {"1": "2"}, {"01": 1}, {"2": 101}, {"2": True}, {"2": None},
        {"1.5": 1}, {"9" * 5000: 1},
    ],
    "stream": ["yes", 1],
    "stream_options": [True, [], {"other": True}, {"include_usage": 1}, {"include_usage": None},
                       {"include_obfuscation": True}],
    "ignore_eos": [1, "true"],
    "return_token_ids": [1, "true"],
    "user": [5, {}],
    "suffix": ["x", 5],
    "presence_penalty": [0.5],
    "frequency_penalty": [-2],
}  # fmt: skip


def read(vocabulary=VOCABULARY, boundaries=STREAM, **body):
    """Return the request of a body."""
    return read_completion(read_fields(body), vocabulary, boundaries)


def test_every_field_has_wrong_values() -> None:
    assert WRONG.keys() == FIELDS.keys()


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in WRONG.items() for value in values],
    ids=lambda value: repr(value)[:30],
)
def test_a_wrong_value_is_refused_with_the_name_of_its_field(name: str, value) -> None:
    with pytest.raises(Refused) as refused:
        read_fields({name: value})
    error = refused.value
    assert (error.status, error.param) == (400, name)
    assert error.message.startswith(f"{name} is ")
    assert "expected" in error.message
    assert len(error.message) < 300
    json.dumps(error.content).encode()


def test_null_means_the_default() -> None:
    assert read_fields(dict.fromkeys(FIELDS)) == read_fields({})


@pytest.mark.parametrize(
    ("name", "hint"), [("max_token", "Use max_tokens"), ("\ud800\n", "expected one of model, ")]
)
def test_an_unknown_field_is_refused(name: str, hint: str) -> None:
    with pytest.raises(Refused, match="not a field") as refused:
        read_fields({name: 1})
    assert hint in refused.value.message
    json.dumps(refused.value.content, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("best_of", {"n": 3, "best_of": 2}),
        ("best_of", {"best_of": 2, "stream": True}),
        ("stream_options", {"stream_options": {"include_usage": True}}),
        ("prompt", {"prompt": [10**9]}),
        ("prompt", {"prompt": [-1]}),
        ("prompt", {"prompt": [[2], [HUGE]]}),
        ("prompt", {"prompt": "\ud800"}),
        ("prompt", {"prompt": [2] * 1_000_001}),
        ("logit_bias", {"logit_bias": {"99": 1}}),
        ("logit_bias", {"logit_bias": {"-1": 1}}),
        ("max_tokens", {"max_tokens": 1_000_000, "n": 128}),
        ("max_tokens", {"prompt": ["a"] * 2048, "max_tokens": 0, "n": 128}),
        ("max_tokens", {"prompt": ["a"] * 2048, "max_tokens": 0, "n": 128, "stream": True}),
        ("logprobs", {"max_tokens": 1_000_000, "logprobs": 20}),
        ("logprobs", {"prompt": [2] * 500_000, "echo": True, "logprobs": 20, "stream": True}),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_what_does_not_fit_together_or_the_model_is_refused(param: str, body: dict) -> None:
    with pytest.raises(Refused) as refused:
        read(**body)
    error = refused.value
    assert (error.status, error.param) == (400, param)
    assert "expected" in error.message or "surrogate" in error.message
    json.dumps(error.content, ensure_ascii=False).encode()


def test_a_model_that_reads_backward_has_no_completions() -> None:
    with pytest.raises(Refused, match="backward"):
        read(BackwardVocabulary(VOCABULARY))


def test_the_defaults_are_those_of_openai() -> None:
    """A new document, 16 tokens, one sample, temperature 1."""
    work = read().work
    assert [ids.tolist() for ids in work.prompts] == [[]]
    assert (work.max_tokens, work.samples, work.sampling.temperature) == (16, 1, 1.0)
    assert (work.stop, work.top, work.score_prompts) == ((), None, False)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("ab", [[2, 3]]),
        (["ab", "b"], [[2, 3], [3]]),
        ([2, 3], [[2, 3]]),
        ([[2, 3], [3]], [[2, 3], [3]]),
        ([EOS], [[EOS]]),
        ("<eos>", [[EOS]]),
        (["", "<eos>"], [[], [EOS]]),
    ],
)
def test_prompts_are_texts_or_ids(prompt, expected: list[list[int]]) -> None:
    request = read(prompt=prompt)
    assert [ids.tolist() for ids in request.work.prompts] == expected
    assert request.prompt_tokens == sum(map(len, expected))
    assert all(ids.dtype == np.int64 for ids in request.work.prompts)


def test_figures_are_kept_where_an_answer_needs_them() -> None:
    assert read(logprobs=0).work.top == 0
    assert read(logprobs=20).work.top == 20
    assert read(vocabulary_of("ab"), logprobs=20).work.top == 4  # all that there are
    assert read(best_of=3).work.top == 0
    assert read(return_token_ids=True).work.top == 0
    assert read(echo=True).work.score_prompts is False
    assert read(echo=True, logprobs=0).work.score_prompts is True
    assert read(logprobs=0).work.score_prompts is False


def test_the_end_of_a_document_ends_a_sample_if_the_model_knows_ends() -> None:
    assert read().work.until_eos is False
    assert read(boundaries=LINES).work.until_eos is True
    assert read(boundaries=LINES, ignore_eos=True).work.until_eos is False


def test_any_seed_of_64_bits_is_one() -> None:
    """numpy takes no negative seeds."""
    seeds = {read(seed=seed).work.seed for seed in (-(2**63), -1, 0, 1, 2**63 - 1)}
    assert len(seeds) == 5
    assert min(seeds) == 0
    assert read().work.seed != read().work.seed


def test_a_bias_is_by_id() -> None:
    assert read(logit_bias={"2": -100, "1": 0.5}).work.bias == {2: -100.0, 1: 0.5}
