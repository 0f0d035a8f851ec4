"""Values of any kind where settings, tables and JSON are expected: a refusal and no other end."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
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
@given(chosen=st.lists(st.tuples(st.sampled_from(NAMES), JSON), min_size=1, max_size=3))
def test_settings_of_any_values(chosen) -> None:
    """Settings, or a usage error that is short enough to read."""
    content: dict = {}
    for (section, name), value in chosen:
        content.setdefault(section, {})[name] = value
    try:
        assert isinstance(settings_from(content), Settings)
    except UsageError as error:
        assert len(str(error)) < 2000


@settings(max_examples=300)
@given(content=JSON, shape=st.sampled_from([CONFIG_SHAPE, RECORD_SHAPE]))
def test_tables_of_any_values(content, shape) -> None:
    """Neither config.json nor run.json, and the place is named."""
    with pytest.raises(RunError, match=r"^here.*expected"):
        check_shape(content, shape, "here")


@settings(max_examples=300)
@given(data=st.binary(max_size=60) | JSON.map(lambda c: json.dumps(c).encode()))
def test_bytes_that_may_be_json(data: bytes) -> None:
    """What Python's parser takes and is finite comes through as it is; the rest is refused."""
    try:
        found = parse_json(data, Path("x.json"))
    except RunError as error:
        assert str(error).startswith("x.json: not valid JSON")
    else:
        assert found == json.loads(data)
        json.dumps(found, allow_nan=False)


def test_a_file_may_have_its_greatest_size_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert read_bytes(tmp_path / "x", 5) == b"12345"
    with pytest.raises(RunError, match="5 bytes; expected at most 4"):
        read_bytes(tmp_path / "x", 4)
