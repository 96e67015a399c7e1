"""Canonical msgpack: the one encoding of every value that is hashed, signed, stored or sent.

* A value is an integer (-2**63 .. 2**64-1), bytes, text, or a tuple of values. Nothing else: no
  maps, floats, booleans, nil or extension types.
* A record is a frozen dataclass; on the wire it is the tuple of its fields, in order. Field types
  are int, bytes, str, enums of text, tuples, records; `Annotated[..., Size]` bounds a length;
  integers are not negative unless `Annotated[int, Signed()]`.
* Decoding checks, in order: size, limits while parsing, re-encoding equal to the input, types.
"""

import hashlib
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from enum import StrEnum
from functools import cache
from operator import attrgetter
from typing import Annotated, Any, NewType, TypeVar, get_args, get_origin, get_type_hints

import msgpack

from ledger.errors import Invalid, Reason
from ledger.types import Hash, Signed, Size

Record = TypeVar("Record")

MAX_ARRAY_ITEMS = 8192
"""A megabyte of empty arrays costs 64 MiB of memory when nothing bounds the count (measured)."""
MAX_TEXT_BYTES = 4096
MAX_INTEGER = 2**63 - 1
"""Record fields are signed 64-bit at most, so that any database or language can hold them."""


_LIMITS: dict[str, Any] = {
    "use_list": False,
    "raw": False,
    "strict_map_key": True,
    "max_array_len": MAX_ARRAY_ITEMS,
    "max_map_len": 0,
    "max_ext_len": 0,
    "max_str_len": MAX_TEXT_BYTES,
}


def encode(value: Any) -> bytes:
    """The canonical bytes of a value made of ints, bytes, text and tuples."""
    data: bytes = msgpack.packb(value, use_bin_type=True)
    return data


def decode(data: bytes, limit: int) -> Any:
    """The value of canonical bytes, tuples for arrays.

    Raises Invalid: TOO_LARGE, NOT_CANONICAL.
    """
    if len(data) > limit:
        raise Invalid(Reason.TOO_LARGE, f"{len(data)} bytes, at most {limit}")
    try:
        value = msgpack.unpackb(data, max_bin_len=limit, **_LIMITS)
        canonical = _is_plain(value) and encode(value) == data
    except (ValueError, TypeError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise Invalid(Reason.NOT_CANONICAL, str(error)) from None
    if not canonical:
        raise Invalid(Reason.NOT_CANONICAL)
    return value


def _is_plain(value: Any) -> bool:
    """Whether a decoded value holds only the permitted types (the type walk)."""
    kind = type(value)
    if kind is tuple:
        return all(map(_is_plain, value))
    return kind is int or kind is bytes or kind is str


def pack(record: Any) -> bytes:
    """The canonical bytes of a record."""
    return encode(plain(record))


def unpack(cls: Callable[..., Record], data: bytes, limit: int) -> Record:
    """The record of class `cls` that `data` encodes.

    Raises Invalid: TOO_LARGE, NOT_CANONICAL, WRONG_TYPE.
    """
    return from_plain(cls, decode(data, limit))


def unpack_first(cls: Callable[..., Record], data: bytes, limit: int) -> Record:
    """The record of class `cls` that is the first field of the one that `data` encodes.

    What follows it is not looked at. Raises Invalid: NOT_CANONICAL, also where it takes more bytes
    than the limit; WRONG_TYPE.
    """
    unpacker = msgpack.Unpacker(max_bin_len=limit, max_buffer_size=limit, **_LIMITS)
    try:
        unpacker.feed(data[:limit])
        unpacker.read_array_header()
        start, value = unpacker.tell(), unpacker.unpack()
        canonical = _is_plain(value) and encode(value) == data[start : unpacker.tell()]
    except (ValueError, TypeError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise Invalid(Reason.NOT_CANONICAL, str(error)) from None
    if not canonical:
        raise Invalid(Reason.NOT_CANONICAL)
    return from_plain(cls, value)


def plain(record: Any) -> tuple[Any, ...]:
    """A record as the tuple that stands for it on the wire."""
    return _record_writer(type(record))(record)  # type: ignore[arg-type]


def from_plain(cls: Callable[..., Record], value: Any) -> Record:
    """The record that a decoded tuple stands for. Raises Invalid WRONG_TYPE."""
    record: Record = _reader(cls)(value)
    return record


def hash_of(tag: str, data: bytes) -> Hash:
    """blake2b-256 of bytes; the kind of thing hashed (at most 16 bytes) is its personalisation."""
    return Hash(hashlib.blake2b(data, digest_size=32, person=tag.encode()).digest())


class Tagged:
    """A closed union of records on the wire: (tag, record), the tag being its place in the list.

    As the mark of an annotated field it makes that field such a union.
    """

    def __init__(self, *kinds: type, limit: int) -> None:
        self.kinds = kinds
        self.limit = limit
        self._tags = {kind: tag for tag, kind in enumerate(kinds)}

    def encode(self, record: Any) -> bytes:
        """The bytes of a record of one of the kinds."""
        return encode(self.plain(record))

    def decode(self, data: bytes) -> Any:
        """The record. Raises Invalid: TOO_LARGE, NOT_CANONICAL, WRONG_TYPE."""
        return self.from_plain(decode(data, self.limit))

    def plain(self, record: Any) -> tuple[int, tuple[Any, ...]]:
        """A record of one of the kinds as the tuple that stands for it on the wire."""
        return self._tags[type(record)], plain(record)

    def from_plain(self, value: Any) -> Any:
        """The record that a decoded tuple stands for. Raises Invalid WRONG_TYPE."""
        if type(value) is not tuple or len(value) != 2 or value[0] not in range(len(self.kinds)):
            raise _refuse(f"one of {', '.join(kind.__name__ for kind in self.kinds)} is due")
        return from_plain(self.kinds[value[0]], value[1])


@cache
def _record_writer(cls: Any) -> Callable[[Any], tuple[Any, ...]]:
    """A function that gives the values of a record's fields, only those rewritten that need it."""
    hints = get_type_hints(cls, include_extras=True)
    names = [field.name for field in fields(cls)]
    writers = [(place, _writer(hints[name])) for place, name in enumerate(names)]
    rewritten = [(place, writer) for place, writer in writers if writer is not _identity]

    def take_few(record: Any) -> tuple[Any, ...]:
        return tuple(getattr(record, name) for name in names)

    take = attrgetter(*names) if len(names) > 1 else take_few  # which gives no tuple for one

    def write(record: Any) -> tuple[Any, ...]:
        values = list(take(record))
        for place, writer in rewritten:
            values[place] = writer(values[place])
        return tuple(values)

    return write if rewritten else take


def _identity(value: Any) -> Any:
    return value


def _writer(hint: Any) -> Callable[[Any], Any]:
    if get_origin(hint) is Annotated:
        hint, mark = get_args(hint)[:2]
        if isinstance(mark, Tagged):
            return mark.plain
    if is_dataclass(hint):
        return _record_writer(hint)  # type: ignore[arg-type]
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return str
    if get_origin(hint) is tuple:
        item = _writer(get_args(hint)[0])
        if item is not _identity:
            return lambda values: tuple(map(item, values))
    return _identity


@cache
def _reader(hint: Any) -> Callable[[Any], Any]:
    """A function that checks a decoded value against a field's type and gives the field's value."""
    size = Size(most=MAX_INTEGER)
    if get_origin(hint) is Annotated:
        hint, mark = get_args(hint)[:2]
        if isinstance(mark, Tagged):
            return mark.from_plain
        return _read_signed if isinstance(mark, Signed) else _sized(hint, mark)
    return _sized(hint, size)


def _sized(hint: Any, size: Size) -> Callable[[Any], Any]:
    if isinstance(hint, NewType):
        return _sized(hint.__supertype__, size)
    if get_origin(hint) is tuple:
        return _tuple_reader(hint, size)
    if isinstance(hint, type) and is_dataclass(hint):
        return _record_reader(hint)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return _enum_reader(hint)
    if hint is int:
        return _read_integer
    if hint in (bytes, str):
        return _length_reader(hint, size)
    raise TypeError(f"{hint!r} is not a wire type")


def _refuse(detail: str) -> Invalid:
    return Invalid(Reason.WRONG_TYPE, detail)


def _read_integer(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_INTEGER:
        raise _refuse("an integer from 0 to 2**63-1 is due")
    return value


def _read_signed(value: Any) -> int:
    if type(value) is not int or not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise _refuse("an integer of 64 bits is due")
    return value


def _length_reader(kind: type[bytes] | type[str], size: Size) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if type(value) is not kind:
            raise _refuse(f"{kind.__name__} is due")
        length = len(value.encode() if isinstance(value, str) else value)
        if not size.least <= length <= size.most:
            raise _refuse(f"length {length} is not within {size.least}..{size.most}")
        return value

    return read


def _enum_reader(kind: type[StrEnum]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        try:
            return kind(value)
        except ValueError:
            raise _refuse(f"{value!r} is none of {', '.join(kind)}") from None

    return read


def _tuple_reader(hint: Any, size: Size) -> Callable[[Any], Any]:
    item = _reader(get_args(hint)[0])

    def read(value: Any) -> Any:
        if type(value) is not tuple or not size.least <= len(value) <= size.most:
            raise _refuse(f"an array of {size.least}..{size.most} items is due")
        return tuple(map(item, value))

    return read


def _record_reader(cls: type) -> Callable[[Any], Any]:
    hints = get_type_hints(cls, include_extras=True)
    readers = tuple(_reader(hints[field.name]) for field in fields(cls))
    names = tuple(field.name for field in fields(cls))

    def read(value: Any) -> Any:
        if type(value) is not tuple or len(value) != len(readers):
            raise _refuse(f"{cls.__name__} has {len(readers)} fields")
        arguments: list[Any] = []
        try:
            for reader, element in zip(readers, value, strict=True):
                arguments.append(reader(element))
        except Invalid as error:
            name = names[len(arguments)]
            raise _refuse(f"{cls.__name__}.{name}: {error.detail}") from None
        return cls(*arguments)

    return read
