"""LMDB's data file read without LMDB: whether its pages are what LMDB will take them for.

LMDB maps the file and follows the page numbers in it unchecked, so that a flipped bit or a cut file
ends the whole process. Here every page is reached by reading, and what is found must be exactly a
set of LMDB's trees (format of LMDB 0.9): each page used once, each key in its place, all counts
right, and no page in use listed as free, which the next commits would overwrite.

A page has a header of 16 bytes, the offsets of its nodes, free space, and the nodes packed at its
end. A node has a header of 8 bytes, its key, and in a leaf its value, or where that is long the
number of the first of its own pages. Numbers are in this machine's byte order.
"""

import os
import sys
from dataclasses import dataclass
from operator import lt
from pathlib import Path
from struct import Struct, unpack, unpack_from
from typing import Any

from ledger.errors import Invalid, Reason

PAGE = Struct("=QHHHH")
"""Number, padding, kind, end of the offsets, start of the nodes."""
LONG_PAGE = Struct("=QHHI")
"""Number, padding, kind, and how many pages the value has."""
META = Struct("=IIQQ")
"""Magic, version, address and size of the map. Two trees and LAST follow."""
TREE = Struct("=IHHQQQQQ")
LAST = Struct("=QQ")
NODE = Struct("=IHH")
"""Length of the value, or lower part of the page number; flags, or its upper part; of the key."""
NUMBER = Struct("=Q")

MAGIC, VERSION = 0xBEEFC0DE, 1
BRANCH, LEAF, LONG, FIRST = 1, 2, 4, 8
"""Kinds of pages."""
LONG_VALUE, SUBTREE = 1, 2
"""Flags of a leaf's nodes."""
INTEGER_KEYS = 8
"""What the flags of the tree of free pages say; those of others say nothing."""
NO_PAGE = 2**64 - 1
MAX_DEPTH = 32
Node = tuple[bytes, int, int, int]
"""Key; length of the value and flags, or the parts of a page number; where the value begins."""


@dataclass(frozen=True)
class Tree:
    """What LMDB notes of one of its trees; the page size is in that of the free pages only."""

    page_bytes: int
    flags: int
    depth: int
    branches: int
    leaves: int
    long: int
    """Pages that long values have to themselves."""
    entries: int
    root: int


@dataclass(frozen=True)
class Meta:
    """One of the two pages that LMDB writes in turn, last of all in a commit."""

    free: Tree
    main: Tree
    last: int
    """The highest number that a page has been given."""
    transaction: int


def check_size(data: Path) -> None:
    """Return if the file has all pages that LMDB may touch; cheap but for files that seem cut.

    Pages at the end may have been given out and never written, so that a file that seems too short
    is walked through. Raises Invalid CORRUPT, OSError.
    """
    with data.open("rb") as file:
        meta = _newest_meta(file.fileno())
        short = os.fstat(file.fileno()).st_size < (meta.last + 1) * meta.free.page_bytes
    if short:
        check_pages(data)


def check_pages(data: Path) -> None:
    """Return if all of the file is as LMDB writes it; nobody may write to it meanwhile.

    Raises Invalid CORRUPT, OSError.
    """
    with data.open("rb") as file:
        meta = _newest_meta(file.fileno())
        pages = _Pages(file.fileno(), meta)
        for _, note in _Walk(pages, meta.main, keep=True).entries:
            _require(len(note) == TREE.size, "a table is noted wrongly")
            table = Tree(*TREE.unpack(note))
            _require(table.flags == 0, "a table has odd flags")
            _Walk(pages, table)
        for freed_by, numbers in _Walk(pages, meta.free, keep=True).entries:
            _require(freed_by in range(1, meta.transaction + 1), "a page was freed in the future")
            pages.free(numbers)
        pages.end()


def _newest_meta(file: int) -> Meta:
    first = _meta(os.pread(file, 512, 0))
    second = _meta(os.pread(file, 512, first.free.page_bytes))
    return max(first, second, key=lambda meta: meta.transaction)


def _meta(page: bytes) -> Meta:
    _require(len(page) == 512, "it is cut off at the start")
    magic, version, _, _ = META.unpack_from(page, PAGE.size)
    _require(magic == MAGIC and version == VERSION, "it does not begin as LMDB's files do")
    _require(PAGE.unpack_from(page)[2] == FIRST, "it does not begin as LMDB's files do")
    at = PAGE.size + META.size
    free, main = Tree(*TREE.unpack_from(page, at)), Tree(*TREE.unpack_from(page, at + TREE.size))
    _require(free.page_bytes in (2**power for power in range(9, 17)), "its pages have an odd size")
    _require(free.flags == INTEGER_KEYS and main.flags == 0, "a table has odd flags")
    return Meta(free, main, *LAST.unpack_from(page, at + 2 * TREE.size))


class _Pages:
    """The pages of a file, each of which has one use."""

    def __init__(self, file: int, meta: Meta) -> None:
        self.bytes = meta.free.page_bytes
        self._file = file
        self._last = meta.last
        self._used = bytearray(min(meta.last + 1, os.fstat(file).st_size // self.bytes))
        self._used[:2] = b"\1\1"
        self._unwritten: set[int] = set()

    def tree_page(self, number: int, kind: int) -> bytes:
        """A page with nodes."""
        self._use(number, 1)
        page = os.pread(self._file, self.bytes, number * self.bytes)
        found, _, said, _, _ = PAGE.unpack_from(page)
        _require((found, said) == (number, kind), f"page {number} is another one")
        return page

    def long_value(self, number: int, length: int) -> int:
        """How many pages a long value has."""
        header = os.pread(self._file, PAGE.size, number * self.bytes) if number < 2**48 else b""
        _require(len(header) == PAGE.size, f"page {number} is not in the file")
        found, _, said, count = LONG_PAGE.unpack(header)
        _require((found, said) == (number, LONG), f"page {number} is another one")
        _require(PAGE.size + length <= count * self.bytes, f"the value on page {number} is cut off")
        self._use(number, count)
        return int(count)

    def read_long(self, number: int, length: int) -> bytes:
        """A long value."""
        return os.pread(self._file, length, number * self.bytes + PAGE.size)

    def free(self, numbers: bytes) -> None:
        """Take a list of free pages, which begins with its length. Their content is nothing."""
        _require(len(numbers) % NUMBER.size == 0 and len(numbers) > 0, "a list is cut off")
        count, *free = unpack(f"={len(numbers) // NUMBER.size}Q", numbers)
        _require(count <= len(free), "a list of free pages is cut off")
        for number in free[:count]:
            if number < len(self._used) or number > self._last:
                self._use(number, 1)
            else:
                _require(number not in self._unwritten, f"page {number} is free twice")
                self._unwritten.add(number)

    def end(self) -> None:
        """Return if the last page given out is known: else all later ones would be too far."""
        last = self._last
        known = last in self._unwritten or (last < len(self._used) and self._used[last])
        _require(bool(known), "it ends with a page that nothing refers to")

    def _use(self, first: int, count: int) -> None:
        end = first + count
        _require(0 <= first < end <= len(self._used), f"page {first} is not in the file")
        _require(self._used.find(1, first, end) < 0, f"page {first} has two uses")
        self._used[first:end] = b"\1" * count


class _Walk:
    """A walk through one tree, which is in order if the walk comes to its end."""

    def __init__(self, pages: _Pages, tree: Tree, *, keep: bool = False) -> None:
        self.entries: list[tuple[Any, bytes]] = []
        """Those of the trees that say where others are; the ledger's own are too many to keep."""
        self._pages = pages
        self._keep = keep
        self._numbers = tree.flags == INTEGER_KEYS
        self._subtrees = keep and not self._numbers
        self._branches = self._leaves = self._long = self._count = 0
        if tree.root != NO_PAGE:
            _require(0 < tree.depth <= MAX_DEPTH, "a table has an odd depth")
            self._below(tree.root, tree.depth, 0 if self._numbers else b"", None)
        found = (self._branches, self._leaves, self._long, self._count)
        noted = (tree.branches, tree.leaves, tree.long, tree.entries)
        _require(found == noted, "a table's size is noted wrongly")

    def _below(self, number: int, depth: int, low: Any, end: Any) -> None:
        """Walk through what is below a page: keys from `low` on, and below `end` if there is one."""
        is_leaf = depth == 1
        page = self._pages.tree_page(number, LEAF if is_leaf else BRANCH)
        nodes = _nodes(page, is_leaf)
        keys: list[Any] = [node[0] for node in nodes]
        if self._numbers:
            keys = [int.from_bytes(key, sys.byteorder) for key in keys]
        if not is_leaf:
            keys[0] = low  # LMDB does not look at it
        ordered = low <= keys[0] and all(map(lt, keys, keys[1:]))
        _require(ordered and (end is None or keys[-1] < end), f"page {number} is out of order")
        if is_leaf:
            self._leaves += 1
            self._count += len(nodes)
            self._values(page, keys, nodes)
        else:
            self._branches += 1
            for node, key, beyond in zip(nodes, keys, [*keys[1:], end], strict=True):
                self._below(node[1] | node[2] << 32, depth - 1, key, beyond)

    def _values(self, page: bytes, keys: list[Any], nodes: list[Node]) -> None:
        for key, (_, length, flags, start) in zip(keys, nodes, strict=True):
            value = page[start : start + length] if self._keep else b""
            if flags == LONG_VALUE:
                (number,) = NUMBER.unpack_from(page, start)
                self._long += self._pages.long_value(number, length)
                value = self._pages.read_long(number, length) if self._keep else b""
            _require(flags == SUBTREE if self._subtrees else flags <= LONG_VALUE, "odd flags")
            if self._keep:
                self.entries.append((key, value))


def _nodes(page: bytes, is_leaf: bool) -> list[Node]:
    """The nodes of a page, which fill its end without gaps."""
    _, _, _, lower, upper = PAGE.unpack_from(page)
    fits = PAGE.size < lower <= upper < len(page) and lower % 2 == 0
    _require(fits, "a page is filled wrongly")
    nodes, ends = [], {}
    for start in unpack_from(f"={(lower - PAGE.size) // 2}H", page, PAGE.size):
        _require(start + NODE.size <= len(page), "a node is beyond its page")
        low, high, width = NODE.unpack_from(page, start)
        at = end = start + NODE.size + width
        if is_leaf:
            end += NUMBER.size if high & LONG_VALUE else low
        nodes.append((page[start + NODE.size : at], low, high, at))
        ends[start] = end + end % 2
    at = upper
    for _ in nodes:
        at = ends.get(at, 0)
    _require(at == len(page), "a page is filled wrongly")
    return nodes


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Invalid(Reason.CORRUPT, otherwise)
