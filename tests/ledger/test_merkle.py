"""The bucket tree: one root for the same rows, and proofs that hold for nothing else."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.codec import hash_of, pack, unpack
from ledger.errors import Invalid, Reason
from ledger.merkle import (
    BUCKETS,
    MAX_CONTENT_BYTES,
    MAX_PROOF_BYTES,
    Proof,
    bucket_of,
    changed_buckets,
    empty_tree,
    key_hash,
    leaf_hash,
    value_hash,
    verify_proof,
)
from ledger.types import Hash

Rows = dict[bytes, bytes]
Changes = dict[bytes, bytes | None]

KEYS = st.integers(0, 40).map(lambda number: b"key %d" % number)
VALUES = st.binary(max_size=5)
ROWS = st.dictionaries(KEYS, VALUES, max_size=40)
HISTORIES = st.lists(st.dictionaries(KEYS, st.none() | VALUES, max_size=8), max_size=8)


class Grown:
    """A tree and its buckets, as changes come in."""

    def __init__(self) -> None:
        self.tree = empty_tree()
        self.buckets: dict[int, bytes] = {}

    def content(self, bucket: int) -> bytes:
        return self.buckets.get(bucket, b"")

    def change(self, changes: Changes) -> "Grown":
        changed = changed_buckets(changes, self.content)
        self.buckets.update(changed)
        leaves = {number: leaf_hash(held) for number, held in changed.items()}
        self.tree = self.tree.after(leaves)
        return self

    def prove(self, key: bytes) -> Proof:
        bucket = bucket_of(key_hash(key))
        return self.tree.prove(bucket, self.content(bucket))


def grown(rows: Rows) -> Grown:
    return Grown().change(dict(rows))


def written_out(rows: Rows) -> Hash:
    """The root as the definition says it: every node, from the leaves up."""
    contents = [b""] * BUCKETS
    for key, value in sorted(rows.items(), key=lambda row: hash_of("poi/key", row[0])):
        name = hash_of("poi/key", key)
        contents[int.from_bytes(name[:2])] += name + hash_of("poi/value", value)
    level = [hash_of("poi/leaf", content) for content in contents]
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=True)
        level = [hash_of("poi/node", left + right) for left, right in pairs]
    return level[0]


def after_all(history: list[Changes]) -> Rows:
    rows: Rows = {}
    for changes in history:
        for key, value in changes.items():
            rows.pop(key, None)
            if value is not None:
                rows[key] = value
    return rows


def crowd(bucket: int, count: int) -> list[bytes]:
    """Keys that lie in one bucket."""
    found, number = [], 0
    while len(found) < count:
        key = b"%d" % number
        if bucket_of(key_hash(key)) == bucket:
            found.append(key)
        number += 1
    return found


def refused(act: Callable[[], object]) -> bool:
    with pytest.raises(Invalid) as caught:
        act()
    return caught.value.reason == Reason.BAD_PROOF


@pytest.mark.parametrize("count", [0, 1, 2, 1000, 100_000])
def test_the_root_is_the_one_that_the_definition_gives(count: int) -> None:
    random = Random(count)
    rows = {random.randbytes(8): random.randbytes(8) for _ in range(count)}
    assert grown(rows).tree.root == written_out(rows)


@given(HISTORIES)
def test_the_root_depends_on_the_rows_alone(history: list[Changes]) -> None:
    """Given changes in some batches, then the root is that of the rows which they come to."""
    state = Grown()
    for changes in history:
        state.change(changes)
    rows = after_all(history)
    assert state.tree == grown(rows).tree
    one_by_one = Grown()
    for key, value in reversed(rows.items()):
        one_by_one.change({key: value})
    assert one_by_one.tree.root == state.tree.root


def test_rows_of_one_bucket_come_in_any_order() -> None:
    keys = crowd(bucket=5, count=4)
    forth, back = Grown(), Grown()
    for key in keys:
        forth.change({key: b"value"})
    for key in reversed(keys):
        back.change({key: b"value"})
    assert forth.tree.root == back.tree.root == written_out(dict.fromkeys(keys, b"value"))
    forth.change({keys[1]: None})
    for key, value in zip(keys, (b"value", None, b"value", b"value"), strict=True):
        verify_proof(forth.tree.root, key, value, forth.prove(key))


def test_a_tree_is_never_changed() -> None:
    before = grown({b"a": b"1"})
    tree, root = before.tree, before.tree.root
    before.change({b"a": b"2", b"b": b"3"})
    assert tree.root == root != before.tree.root
    before.change({b"a": b"1", b"b": None})
    assert before.tree == tree


def test_hashes_of_keys_values_leaves_and_nodes_never_meet() -> None:
    assert len({hashed(b"x" * 64) for hashed in (key_hash, value_hash, leaf_hash)}) == 3
    assert key_hash(b"x") == hash_of("poi/key", b"x")


@given(ROWS, KEYS)
def test_a_proof_shows_a_row_or_that_there_is_none(rows: Rows, key: bytes) -> None:
    state = grown(rows)
    proof = unpack(Proof, pack(state.prove(key)), MAX_PROOF_BYTES)
    verify_proof(state.tree.root, key, rows.get(key), proof)


@given(ROWS, KEYS, VALUES, st.data())
def test_a_proof_shows_nothing_else(rows: Rows, key: bytes, other: bytes, data) -> None:
    """Given a proof, then another value, another key's row, absence of what is there or another
    root is refused."""
    state = grown(rows)
    root, proof, value = state.tree.root, state.prove(key), rows.get(key)
    if other != value:
        assert refused(lambda: verify_proof(root, key, other, proof))
    if value is not None:
        assert refused(lambda: verify_proof(root, key, None, proof))
        away = key + b"'"
        assert refused(lambda: verify_proof(root, away, value, proof))
    elsewhere = Grown().change({**rows, b"one more": b""}).tree.root
    assert refused(lambda: verify_proof(elsewhere, key, value, proof))


@given(ROWS.filter(bool), st.data())
def test_a_proof_with_any_bit_flipped_shows_nothing(rows: Rows, data) -> None:
    state = grown(rows)
    key = data.draw(st.sampled_from(sorted(rows)))
    packed = bytearray(pack(state.prove(key)))
    bit = data.draw(st.integers(0, 8 * len(packed) - 1))
    packed[bit // 8] ^= 1 << bit % 8
    try:
        forged = unpack(Proof, bytes(packed), MAX_PROOF_BYTES)
    except Invalid:
        return  # it is no proof any more
    assert refused(lambda: verify_proof(state.tree.root, key, rows[key], forged))


def test_a_proof_of_a_bucket_with_neighbours() -> None:
    keys = crowd(bucket=BUCKETS - 1, count=3)
    state = grown(dict.fromkeys(keys[:2], b"value"))
    proof = state.prove(keys[0])
    assert len(proof.content) == 128
    verify_proof(state.tree.root, keys[1], b"value", proof)
    verify_proof(state.tree.root, keys[2], None, proof)
    swapped = replace(proof, content=proof.content[64:] + proof.content[:64])
    assert refused(lambda: verify_proof(state.tree.root, keys[0], b"value", swapped))
    less = replace(proof, content=proof.content[64:])
    assert refused(lambda: verify_proof(state.tree.root, keys[0], None, less))


def test_the_largest_proof_is_within_its_limit() -> None:
    largest = empty_tree().prove(0, bytes(MAX_CONTENT_BYTES))
    assert unpack(Proof, pack(largest), MAX_PROOF_BYTES) == largest
    with pytest.raises(Invalid) as caught:
        unpack(Proof, pack(replace(largest, siblings=largest.siblings[1:])), MAX_PROOF_BYTES)
    assert caught.value.reason == Reason.WRONG_TYPE
