import json
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from lineproof.core.errors import UsageError
from lineproof.core.strict import IN_MEMORY, read_as


@dataclass(frozen=True, kw_only=True)
class Inner:
    share: float
    kind: Literal["a", "b"] = "a"

    def __post_init__(self):
        if self.share > 1:
            raise UsageError(f"The share is {self.share}; expected 0 to 1.")


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    size: tuple[int, int]
    inner: Inner
    parts: dict[str, tuple[Inner, ...]] = field(default_factory=dict)
    limit: int | None = None
    shape: tuple[int | str, ...] = ()
    free: Any = None
    is_fresh: bool = field(default=True, metadata={IN_MEMORY: True})


WHOLE = {"name": "x", "size": [3, 4], "inner": {"share": 1}, "parts": {"p": [{"share": 0.5, "kind": "b"}]},
         "limit": None, "shape": ["N", 3], "free": {"any": [1]}}  # fmt: skip


def changed(**fields):
    return json.loads(json.dumps({**WHOLE, **fields}))


def test_a_value_is_built_with_everything_in_it():
    assert read_as(Outer, changed(limit=7)) == Outer(
        name="x", size=(3, 4), inner=Inner(share=1), parts={"p": (Inner(share=0.5, kind="b"),)}, limit=7,
        shape=("N", 3), free={"any": [1]},
    )  # fmt: skip


def test_numbers_stay_what_the_file_says():
    """A seal over what was read must be that over the file."""
    assert type(read_as(Outer, changed()).inner.share) is int


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": 5}, "name is 5, expected str"),
        ({"size": [3]}, r"size is \[3\], expected a list of 2 int"),
        ({"size": "34"}, "size is '34', expected a list of 2 int"),
        ({"size": [3, True]}, r"size\.1 is True, expected int"),
        ({"inner": []}, r"inner is \[\], expected an object"),
        ({"inner": {}}, r"inner\.share is missing; expected float"),
        ({"inner": {"share": "1"}}, r"inner\.share is '1', expected float"),
        ({"inner": {"share": 2}}, r"inner: The share is 2; expected 0 to 1\."),
        ({"inner": {"share": 1, "hue": 2}}, r"inner\.hue is no field of this file; expected share, kind"),
        ({"parts": {"p": [{"share": 1, "kind": "c"}]}}, r"parts\.p\.0\.kind is 'c', expected one of 'a', 'b'"),
        ({"limit": 1.0}, r"limit is 1\.0, expected int"),
        ({"shape": [None]}, r"shape\.0 is None, expected int or str"),
        ({"is_fresh": True}, "is_fresh is no field of this file"),
        ({"name": list(range(99))}, r"name is \[0, 1, 2, .{40,60}…, expected str"),
    ],
)
def test_what_is_of_another_type_is_named_by_its_path(fields, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        read_as(Outer, changed(**fields))


@pytest.mark.parametrize("written", ["NaN", "Infinity", "-1e999"])
def test_numbers_that_are_not_finite_are_refused(written):
    with pytest.raises(ValueError, match=r"inner\.share is (nan|-?inf), expected a finite float"):
        read_as(Outer, json.loads(json.dumps(changed(inner={"share": "HERE"})).replace('"HERE"', written)))


def test_a_whole_of_another_type_and_a_place_in_a_file():
    with pytest.raises(ValueError, match=r"the file is \[\], expected an object"):
        read_as(Outer, [])
    with pytest.raises(ValueError, match=r"0\.share is None, expected float"):
        read_as(Inner, {"share": None}, where="0")


def test_fields_of_a_later_release_are_left_out_where_that_is_allowed():
    raw = changed(hue=1, inner={"share": 1, "hue": 2})
    assert read_as(Outer, raw, refuses_unknown=False) == read_as(Outer, changed())
