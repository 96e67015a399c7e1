import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.rows import Rows
from consensus.yuma import stake_shares
from ledger.errors import Invalid, Reason
from ledger.vectors import pack

ENTRIES = st.dictionaries(st.integers(0, 3), st.integers(0, 65535)).map(lambda row: [*row.items()])
ROWS = st.lists(ENTRIES, min_size=4, max_size=4)


def packed(rows: list[list[tuple[int, int]]]) -> list[tuple[bytes, bytes]]:
    return [(pack([uid for uid, _ in row]), pack([value for _, value in row])) for row in rows]


@given(ROWS)
def test_rows_from_bytes_are_those_from_pairs(rows: list[list[tuple[int, int]]]) -> None:
    expected = [[list(entry) for entry in sorted(row)] for row in rows]
    assert Rows.of_bytes(packed(rows)).pairs() == expected
    assert Rows.of_pairs(rows).pairs() == expected


@given(ROWS)
def test_bytes_of_a_row_undo_of_bytes(rows: list[list[tuple[int, int]]]) -> None:
    ordered = packed([sorted(row) for row in rows])
    kept = Rows.of_bytes(ordered)
    assert [kept.bytes_of(uid) for uid in range(len(rows))] == ordered


def test_no_rows() -> None:
    assert Rows.of_bytes([]).pairs() == Rows.of_pairs([]).pairs() == []


@pytest.mark.parametrize(
    "rows",
    [
        [(pack([0]), b"")],
        [(pack([0]), pack([1, 2]))],
        [(pack([1]), pack([1]))],
        [(pack([0, 0]), pack([1, 2]))],
    ],
    ids=["no value", "two values", "a uid beyond the rows", "a uid twice"],
)
def test_rows_that_are_none(rows: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(Invalid) as refusal:
        Rows.of_bytes(rows)
    assert refusal.value.reason == Reason.BAD_EPOCH


def test_shares_of_stakes_beyond_64_bits_in_sum() -> None:
    most = 2**63 - 1
    assert stake_shares([most] * 4096, 0, -1).tolist() == [2**20] * 4096
    assert stake_shares([most, 5, 4], 5, 2).tolist() == [2**32 - 1, 0, 0]
    assert stake_shares([1, 5, 3, 4], 5, 2).tolist() == [0, 5 * 2**32 // 8, 3 * 2**32 // 8, 0]
