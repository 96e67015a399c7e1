"""The bucket tree: one hash over all rows of the state, and proofs of what is and is not in it.

A row lies in the bucket that the first two bytes of its key's hash name. A bucket's content is
its entries, H(key) and H(value), 64 bytes each, ascending. The contents' hashes are the leaves of
a binary tree of 16 levels; its top is the root. The same rows have the same root, in whatever order
and steps they came.

Keys are hashed so that nobody's choice of keys makes the tree uneven at little cost: to put a
second row into one bucket takes 2**16 tries, and each row is paid for.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from typing import Annotated, Final

from ledger.errors import Invalid, Reason
from ledger.types import Hash, HashField, Size, exactly

BUCKETS: Final = 2**16
HASH_BYTES: Final = 32
ENTRY_BYTES: Final = 2 * HASH_BYTES
PART_LEAVES: Final = 2**8
"""The tree is kept as 256 parts of 256 leaves under one such part; a change copies few of them."""
MAX_CONTENT_BYTES: Final = 2**20
"""Of a bucket in a proof: 16,384 rows; at a million rows in all a bucket has 16 on average."""
MAX_PROOF_BYTES: Final = MAX_CONTENT_BYTES + 2**10


def _hasher(tag: str) -> Callable[[bytes], Hash]:
    """`ledger.codec.hash_of` with one tag, in 60 % of its time."""
    fresh = blake2b(digest_size=HASH_BYTES, person=tag.encode())

    def hashed(data: bytes) -> Hash:
        hasher = fresh.copy()
        hasher.update(data)
        return Hash(hasher.digest())

    return hashed


key_hash = _hasher("poi/key")
value_hash = _hasher("poi/value")
leaf_hash = _hasher("poi/leaf")
node_hash = _hasher("poi/node")


def bucket_of(hashed_key: Hash) -> int:
    """Which bucket a row is in, by its key's hash."""
    return int.from_bytes(hashed_key[:2])


def changed_buckets(
    changes: Mapping[bytes, bytes | None], content: Callable[[int], bytes]
) -> dict[int, bytes]:
    """The new contents of the buckets that changed rows lie in; None stands for a deleted row.

    `content` gives what a bucket holds so far.
    """
    entries: dict[int, dict[bytes, bytes | None]] = {}
    for key, value in changes.items():
        name = key_hash(key)
        hashed = None if value is None else value_hash(value)
        entries.setdefault(bucket_of(name), {})[name] = hashed
    return {bucket: _changed(content(bucket), some) for bucket, some in sorted(entries.items())}


def _changed(content: bytes, entries: Mapping[bytes, bytes | None]) -> bytes:
    held: dict[bytes, bytes | None] = dict(entries_of(content))
    held.update(entries)
    return b"".join(name + value for name, value in sorted(held.items()) if value is not None)


def entries_of(content: bytes) -> Iterator[tuple[Hash, Hash]]:
    """The hashes of keys and values in a bucket, in order."""
    for start in range(0, len(content), ENTRY_BYTES):
        middle = start + HASH_BYTES
        yield Hash(content[start:middle]), Hash(content[middle : middle + HASH_BYTES])


def sorted_entries(content: bytes) -> bytes:
    """A bucket's content from its entries in any order."""
    starts = range(0, len(content), ENTRY_BYTES)
    return b"".join(sorted(content[start : start + ENTRY_BYTES] for start in starts))


@dataclass(frozen=True)
class Proof:
    """All that is in one bucket, and the hashes beside its way to the root, lowest first."""

    content: Annotated[bytes, Size(MAX_CONTENT_BYTES)]
    siblings: Annotated[tuple[HashField, ...], exactly(16)]


@dataclass(frozen=True)
class Tree:
    """All hashes of the tree, 4 MiB in memory: a value, never changed.

    A part is a full binary tree in bytes: node n has the children 2n and 2n + 1, node 1 is its top.
    The tops of the parts are the leaves of `upper`.
    """

    upper: bytes
    parts: tuple[bytes, ...]

    @property
    def root(self) -> Hash:
        """The hash over all."""
        return _node(self.upper, 1)

    def after(self, leaves: Mapping[int, Hash]) -> "Tree":
        """The tree in which some buckets have other leaves; only their ways up are hashed anew."""
        changed: dict[int, dict[int, Hash]] = {}
        for bucket, leaf in leaves.items():
            part, place = divmod(bucket, PART_LEAVES)
            changed.setdefault(part, {})[place] = leaf
        parts = list(self.parts)
        for part, some in changed.items():
            parts[part] = _with_leaves(parts[part], some)
        upper = _with_leaves(self.upper, {part: _node(parts[part], 1) for part in changed})
        return Tree(upper, tuple(parts))

    def prove(self, bucket: int, content: bytes) -> Proof:
        """The proof of what is in a bucket, whose content it is, and of what is not."""
        part, place = divmod(bucket, PART_LEAVES)
        return Proof(content, (*_siblings(self.parts[part], place), *_siblings(self.upper, part)))


@cache
def empty_tree() -> Tree:
    """The tree over no rows: an empty bucket has the leaf of empty content."""
    part = _level(leaf_hash(b""))
    return Tree(_level(_node(part, 1)), (part,) * PART_LEAVES)


def verify_proof(root: Hash, key: bytes, value: bytes | None, proof: Proof) -> None:
    """Return if under this root the key has this value, or with None is not there.

    Raises Invalid BAD_PROOF.
    """
    name = key_hash(key)
    bucket = bucket_of(name)
    node = leaf_hash(proof.content)
    for level, sibling in enumerate(proof.siblings):
        pair = sibling + node if bucket >> level & 1 else node + sibling
        node = node_hash(pair)
    if node != root:
        raise Invalid(Reason.BAD_PROOF, "it leads to another root")
    expected = None if value is None else value_hash(value)
    if dict(entries_of(proof.content)).get(name) != expected:
        raise Invalid(Reason.BAD_PROOF, "the row is another one")


def _node(part: bytes, number: int) -> Hash:
    return Hash(bytes(part[number * HASH_BYTES : (number + 1) * HASH_BYTES]))


def _level(leaf: Hash) -> bytes:
    """A part whose leaves are all the same."""
    levels = [leaf]
    while len(levels) < PART_LEAVES.bit_length():
        levels.append(node_hash(levels[-1] * 2))
    widths = (hashed * 2**depth for depth, hashed in enumerate(reversed(levels)))
    return bytes(HASH_BYTES) + b"".join(widths)


def _with_leaves(part: bytes, leaves: Mapping[int, Hash]) -> bytes:
    """A part with some other leaves, hashed upwards from them, each node once."""
    nodes = bytearray(part)
    for place, leaf in leaves.items():
        start = (PART_LEAVES + place) * HASH_BYTES
        nodes[start : start + HASH_BYTES] = leaf
    level = {(PART_LEAVES + place) // 2 for place in leaves}
    while level - {0}:
        for number in level:
            start = number * HASH_BYTES
            children = bytes(nodes[2 * start : 2 * start + 2 * HASH_BYTES])
            nodes[start : start + HASH_BYTES] = node_hash(children)
        level = {number // 2 for number in level}
    return bytes(nodes)


def _siblings(part: bytes, place: int) -> Iterator[Hash]:
    number = PART_LEAVES + place
    while number > 1:
        yield _node(part, number ^ 1)
        number //= 2


def root_of(rows: Mapping[bytes, bytes]) -> Hash:
    """The root over these rows and no others."""
    buckets = changed_buckets(rows, lambda _: b"")
    return empty_tree().after({number: leaf_hash(held) for number, held in buckets.items()}).root
