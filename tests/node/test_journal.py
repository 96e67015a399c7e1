"""A validator's journal, whatever miners send: bounded in a line, in a file, and readable after."""

from pathlib import Path

import numpy as np
import pytest
import trio

from ledger.codec import pack
from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair
from ledger.types import ChainId, Hash
from models.answers import MAX_WIDTH, directions_of, most_bytes
from models.pipe import Part
from models.types import (
    MAX_ANSWER_BYTES,
    Finish,
    Kind,
    Passages,
    Query,
    Receipt,
    ReceiptBody,
    Sampling,
    Tensor,
    input_hash,
    output_hash,
    request_hash,
    sign_receipt,
)
from p2p.net.links import Event, _Asker
from p2p.net.protocols import MAX_CHUNK_BYTES, More, Piece
from p2p.node import journal as journals
from p2p.node.attempt import INLINE_BYTES, KEPT_BYTES, Broken, Evidence, Progress, check
from p2p.node.journal import MAX_LINE_BYTES, Journal

MINER, VALIDATOR = KeyPair.generate(), KeyPair.generate()
CHAIN = ChainId(b"c" * 16)
DATA = pack(Passages(("a", "b", "c")))


def query_of(kind: Kind = Kind.EMBEDDING, data: bytes = DATA) -> Query:
    return Query(
        CHAIN, VALIDATOR.public, bytes(16), Hash(b"m" * 32), kind, input_hash(data), len(data), (),
        Sampling(), b"", 5000,
    )  # fmt: skip


def vectors(width: int) -> tuple[bytes, Tensor]:
    """Three directions, as a server would send them."""
    output = np.zeros((3, width), "<f4")
    output[:, 0] = 1
    return output.tobytes(), Tensor("float32", (3, width))


def signed(query: Query, output: bytes, tensor: Tensor) -> Receipt:
    body = ReceiptBody(
        CHAIN, MINER.public, request_hash(query), query.model, output_hash(output), (tensor,),
        1, 0, Finish.STOP, 1, 2, 3, 0, "engine",
    )  # fmt: skip
    return sign_receipt(body, MINER)


def evidence(width: int) -> Evidence:
    output, tensor = vectors(width)
    query = query_of()
    return Evidence(query, DATA, output, signed(query, output, tensor))


# --- what an answer may be


def test_directions_are_no_wider_than_any_model() -> None:
    output, tensor = vectors(MAX_WIDTH)
    assert directions_of(tensor, output, 3).shape == (3, MAX_WIDTH)
    output, tensor = vectors(MAX_WIDTH + 1)
    with pytest.raises(Invalid) as caught:
        directions_of(tensor, output, 3)
    assert caught.value.reason == Reason.BAD_ANSWER


@pytest.mark.parametrize(
    ("kind", "most"),
    [(Kind.CHOICE, 16 * 8), (Kind.EMBEDDING, 2 * 2**20), (Kind.TENSOR, MAX_ANSWER_BYTES)],
)
async def test_no_more_of_an_answer_is_read_than_its_kind_can_have(kind: Kind, most: int) -> None:
    assert most_bytes(kind) == most
    send, receive = trio.open_memory_channel[Event](64)
    asker = _Asker(send, most_bytes(kind))
    first = min(most, MAX_CHUNK_BYTES)
    assert not asker.is_done_by(Piece(1, b"", bytes(first), (Tensor("float32", (1,)),)))
    for _ in range(first, most, MAX_CHUNK_BYTES):
        assert not asker.is_done_by(More(1, bytes(MAX_CHUNK_BYTES)))
    assert asker.is_done_by(More(1, b"x"))
    assert receive.statistics().current_buffer_used == -(-most // MAX_CHUNK_BYTES)


@pytest.mark.parametrize("width", [64, INLINE_BYTES, MAX_WIDTH])
async def test_an_answer_is_checked_alike_here_and_in_a_thread(width: int) -> None:
    output, tensor = vectors(width)
    query, progress = query_of(), Progress()
    progress.add(Part(0, b"", output, (tensor,)))
    receipt = signed(query, output, tensor)
    if width > MAX_WIDTH:
        with pytest.raises(Broken, match="at most 8192"):
            await check(MINER.peer_id, receipt, query, DATA, progress)
    else:
        await check(MINER.peer_id, receipt, query, DATA, progress)


# --- what is kept of it


def test_what_is_small_is_kept_whole_and_what_is_large_by_its_hash() -> None:
    small, large = evidence(64).kept(), evidence(KEPT_BYTES).kept()
    assert small == {"receipt": evidence(64).as_json(), "hashed": None}
    assert large["receipt"] is None
    assert large["hashed"] is not None
    assert set(large["hashed"]) == {"query", "receipt", "input"}


def test_hostile_answers_leave_room_for_the_honest_one(tmp_path: Path, monkeypatch) -> None:
    """Given a hundred visits whose answers have megabytes; then all are there, and so is the next,
    in a file of no more than a quarter of a MiB."""
    monkeypatch.setattr(journals, "MAX_FILE_BYTES", 2**18)
    journal = Journal(tmp_path)
    hostile = {"uid": 1, **evidence(10**6).kept()}
    for _ in range(100):
        journal.note(100, hostile)
    journal.note(100, {"uid": 7, **evidence(64).kept()})
    assert [visit["uid"] for visit in journal.visits(100)] == [1] * 100 + [7]
    assert journal.visits(100)[-1]["receipt"]


def test_a_file_never_grows_over_its_limit(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(journals, "MAX_FILE_BYTES", 1000)
    journal = Journal(tmp_path)
    for length in (900, 200, 20):
        journal.note(100, {"uid": length, "fault": "x" * length})
    assert [visit["uid"] for visit in journal.visits(100)] == [900, 20]
    assert (tmp_path / "000000000100.jsonl").stat().st_size <= 1000


def test_a_line_over_its_limit_is_kept_without_its_receipt(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.note(100, {"uid": 1, "receipt": {"output": "x" * MAX_LINE_BYTES}})
    journal.note(100, {"uid": 2, "fault": "x" * MAX_LINE_BYTES})
    assert journal.visits(100) == [{"uid": 1, "receipt": None, "hashed": None}]
