"""Arbitrary values in place of settings, records and JSON: refused, never another error."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from charlm.config.settings import Settings, settings_from
from charlm.errors import RunError, UsageError
from charlm.files.safe_read import parse_json, read_bytes
from charlm.runs.shapes import CONFIG_SHAPE, RECORD_SHAPE, check_shape

LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from([10**400, "lstm", "auto", "char", 0.5, -1]),
)  # fmt: skip
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
PLAIN = Settings().to_dict()
NAMES = [(section, name) for section, values in PLAIN.items() for name in values]


@settings(max_examples=300)
@example(values=[(("model", "dropout"), 10**400)])
@given(values=st.lists(st.tuples(st.sampled_from(NAMES), JSON), min_size=1, max_size=3))
def test_arbitrary_settings_are_accepted_or_refused_briefly(values) -> None:
    content: dict = {}
    for (section, name), value in values:
        content.setdefault(section, {})[name] = value
    try:
        assert isinstance(settings_from(content), Settings)
    except UsageError as error:
        assert len(str(error)) < 2000


@settings(max_examples=300)
@given(content=JSON, shape=st.sampled_from([CONFIG_SHAPE, RECORD_SHAPE]))
def test_arbitrary_json_is_no_config_and_no_record(content, shape) -> None:
    """The message names the place."""
    with pytest.raises(RunError, match=r"^here.*expected"):
        check_shape(content, shape, "here")


@settings(max_examples=300)
@given(data=st.binary(max_size=60) | JSON.map(lambda c: json.dumps(c).encode()))
def test_arbitrary_bytes_are_parsed_as_python_does_or_refused(data: bytes) -> None:
    try:
        content = parse_json(data, Path("x.json"))
    except RunError as error:
        assert str(error).startswith("x.json is not valid JSON")
    else:
        assert content == json.loads(data)
        json.dumps(content, allow_nan=False)


def test_a_file_above_its_largest_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert read_bytes(tmp_path / "x", 5) == b"12345"
    with pytest.raises(RunError, match="5 bytes; expected at most 4"):
        read_bytes(tmp_path / "x", 4)
