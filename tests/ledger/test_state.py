"""The state over memory, and over itself: what is written is seen, and the base stays as it was."""

from hypothesis import given
from hypothesis import strategies as st

from ledger.state import MemoryRows, State
from ledger.tables import ACCOUNTS, UIDS, Account, Uid

KEYS = st.sampled_from([bytes([a, b]) for a in range(3) for b in range(3)])
WRITES = st.lists(st.tuples(KEYS, st.none() | st.integers(0, 5)), max_size=12)


def write(state: State, writes: list[tuple[bytes, int | None]]) -> None:
    for key, value in writes:
        if value is None:
            state.delete(UIDS, key)
        else:
            state.put(UIDS, key, Uid(value))


def apply(model: dict[bytes, Uid], writes: list[tuple[bytes, int | None]]) -> None:
    for key, value in writes:
        if value is None:
            model.pop(key, None)
        else:
            model[key] = Uid(value)


@given(WRITES, WRITES, WRITES, KEYS, KEYS)
def test_layers_of_states_read_as_one_dict(
    stored: list[tuple[bytes, int | None]],
    written: list[tuple[bytes, int | None]],
    drafted: list[tuple[bytes, int | None]],
    key: bytes,
    start: bytes,
) -> None:
    model: dict[bytes, Uid] = {}
    rows = MemoryRows()
    first = State(rows)
    write(first, stored)
    rows.update(first.changes())
    state = State(rows)
    write(state, written)
    draft = State(state)
    write(draft, drafted)
    for writes in (stored, written, drafted):
        apply(model, writes)
    assert draft.get(UIDS, key) == model.get(key)
    assert list(draft.rows(UIDS)) == sorted(model.items())
    for prefix in (b"", key[:1]):
        expected = sorted((k, v) for k, v in model.items() if k.startswith(prefix) and k >= start)
        assert list(draft.rows(UIDS, prefix, start)) == expected

    state.merge(draft)
    rows.update(state.changes())
    assert list(State(rows).rows(UIDS)) == sorted(model.items())


def test_a_draft_leaves_what_lies_under_it_alone() -> None:
    state = State(MemoryRows())
    state.put(ACCOUNTS, b"a", Account(5))
    draft = State(state)
    draft.put(ACCOUNTS, b"a", Account(4))
    draft.delete(UIDS, b"x")
    assert state.get(ACCOUNTS, b"a") == Account(5)
    assert state.changes() == {b"aa": b"\x92\x05\x00"}


def test_tables_do_not_mix() -> None:
    state = State(MemoryRows())
    state.put(ACCOUNTS, b"k", Account(1))
    assert state.get(UIDS, b"k") is None
    assert list(state.rows(UIDS)) == []
