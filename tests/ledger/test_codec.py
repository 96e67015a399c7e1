"""The canonical encoding: what goes in comes out, and no other bytes stand for it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.codec import Tagged, decode, encode, from_plain, pack, unpack, unpack_first
from ledger.errors import Invalid, Reason
from ledger.types import Signed, Size, exactly

LIMIT = 10_000
VALUES = st.recursive(
    st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=40),
    lambda items: st.lists(items, max_size=5).map(tuple),
    max_leaves=20,
)


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Point:
    x: Annotated[int, Signed()]
    label: Annotated[str, Size(8)]


@dataclass(frozen=True)
class Shape:
    key: Annotated[bytes, exactly(4)]
    colour: Colour
    points: Annotated[tuple[Point, ...], Size(3, least=1)]
    sizes: tuple[int, ...]


SHAPE = Shape(b"abcd", Colour.BLUE, (Point(1, "a"), Point(-2, "é")), (1, 2, 3))


def reason_of(function, *arguments) -> Reason:
    """Why a call is refused."""
    with pytest.raises(Invalid) as caught:
        function(*arguments)
    return caught.value.reason


@given(VALUES)
def test_decoding_gives_back_what_was_encoded(value) -> None:
    assert decode(encode(value), LIMIT) == value


@given(st.binary(max_size=60))
def test_no_two_encodings_stand_for_one_value(data: bytes) -> None:
    try:
        value = decode(data, LIMIT)
    except Invalid as error:
        assert error.reason == Reason.NOT_CANONICAL
    else:
        assert encode(value) == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xcd\x00\x01",  # 1 in two bytes
        b"\xc0",  # nil
        b"\xc3",  # true
        b"\xcb" + bytes(8),  # a float
        b"\x80",  # a map
        b"\xd6\xff" + bytes(4),  # a timestamp
        b"\x01\x02",  # trailing bytes
        b"\xdd\xff\xff\xff\xff",  # 2**32 items claimed
        b"\x91" * 5000,  # nesting
        b"\xa1\xff",  # not UTF-8
        b"\xd9\x01a",  # text with a longer head than due
    ],
    ids=lambda data: data[:6].hex(),
)
def test_what_is_not_canonical_is_refused(data: bytes) -> None:
    assert reason_of(decode, data, LIMIT) == Reason.NOT_CANONICAL


def test_an_array_bomb_is_refused() -> None:
    assert reason_of(decode, b"\xdd\x00\x0f\x00\x00" + b"\x90" * 2**20, 2**21)


def test_size_is_checked_before_anything_is_decoded() -> None:
    assert reason_of(decode, b"\xc0" * 101, 100) == Reason.TOO_LARGE


def test_a_record_is_the_tuple_of_its_fields() -> None:
    fields = (b"abcd", "blue", ((1, "a"), (-2, "é")), (1, 2, 3))
    assert pack(SHAPE) == encode(fields)
    assert unpack(Shape, pack(SHAPE), LIMIT) == SHAPE


@pytest.mark.parametrize(
    "fields",
    [
        (b"abc", "blue", ((1, "a"),), ()),
        (b"abcd", "green", ((1, "a"),), ()),
        (b"abcd", "blue", (), ()),
        (b"abcd", "blue", ((1, "a"),) * 4, ()),
        (b"abcd", "blue", ((1, "éééééé"),), ()),
        (b"abcd", "blue", ((1, b"a"),), ()),
        (b"abcd", "blue", ((1, "a", 2),), ()),
        (b"abcd", "blue", ((2**63, "a"),), ()),
        (b"abcd", "blue", ((1, "a"),), (-1,)),
        (b"abcd", "blue", ((1, "a"),), (2**63,)),
        (b"abcd", "blue", ((1, "a"),)),
        (b"abcd", "blue", ((1, "a"),), (b"",)),
        "abcd",
    ],
)
def test_a_field_out_of_its_bounds_is_refused(fields) -> None:
    assert reason_of(from_plain, Shape, fields) == Reason.WRONG_TYPE


@given(st.integers(0, 8 * len(pack(SHAPE)) - 1))
def test_a_flipped_bit_is_refused_or_is_another_record(bit: int) -> None:
    data = bytearray(pack(SHAPE))
    data[bit // 8] ^= 1 << bit % 8
    try:
        assert unpack(Shape, bytes(data), LIMIT) != SHAPE
    except Invalid as error:
        assert error.reason in (Reason.NOT_CANONICAL, Reason.WRONG_TYPE)


def test_a_union_tells_its_records_apart() -> None:
    union = Tagged(Point, Shape, limit=LIMIT)
    assert union.decode(union.encode(SHAPE)) == SHAPE
    assert union.decode(union.encode(Point(1, ""))) == Point(1, "")
    assert reason_of(union.decode, encode((2, ()))) == Reason.WRONG_TYPE
    assert reason_of(union.decode, encode((b"", ()))) == Reason.WRONG_TYPE
    assert reason_of(union.decode, encode(7)) == Reason.WRONG_TYPE


@dataclass(frozen=True)
class Line:
    start: Point
    rest: bytes


def test_the_first_field_is_read_without_the_others() -> None:
    """Given a record whose first field is a record, then that is given if it is whole and sound,
    whatever follows."""
    point = SHAPE.points[0]
    data = pack(Line(point, b"x" * 5000))
    assert unpack_first(Point, data, 100) == point
    assert unpack_first(Point, data[:90], 100) == point
    for wrong in (b"", data[:2], b"\xff" + data, data[1:], b"\x93\x81\x01\x01", b"\x93" * 100):
        with pytest.raises(Invalid):
            unpack_first(Point, wrong, 100)
    with pytest.raises(Invalid):
        unpack_first(Point, data, 3)
