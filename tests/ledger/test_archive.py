"""Blocks in a file: what was written is read, and what was changed is refused in a sentence."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

import ledger.archive
from ledger.archive import FIRST_LINE, Archive, write_blocks
from ledger.blocks import Block, Certificate, Decided
from ledger.codec import pack
from ledger.errors import Invalid, Reason
from ledger.snapshot import seal
from ledger.store import Store
from ledger.types import ChainId
from tests.ledger.chain import CHAIN, commit, new_store, next_of, refusal, stand_in

HEIGHT = 7


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with new_store(tmp_path / "chain") as made:
        for number in range(1, HEIGHT + 1):
            commit(made, {b"row": b"%d" % number}, (stand_in(f"{number}"),))
        yield made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "blocks"


def read(file: Path) -> list[tuple[Block, Certificate]]:
    """All that a file holds."""
    with Archive.open(file) as archive:
        return list(archive.blocks())


def test_blocks_are_read_as_they_were_written(
    store: Store, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger.archive, "AT_ONCE", 3)
    title = write_blocks(store, file, 0, 1000)
    assert (title.chain, title.first, title.last) == (CHAIN, 1, HEIGHT)
    with store.snapshot() as disk, Archive.open(file) as archive:
        assert archive.title == title
        for height, (block, certificate) in enumerate(archive.blocks(), 1):
            assert pack(block) == disk.block(height)
            assert pack(certificate) == disk.certificate(height)
    assert height == HEIGHT


def test_a_part_of_a_chain(store: Store, file: Path) -> None:
    assert write_blocks(store, file, 3, 5).last == 5
    assert [block.header.height for block, _ in read(file)] == [3, 4, 5]
    other = file.with_name("other")
    assert refusal(write_blocks, store, other, HEIGHT + 1, 99) == Reason.WRONG_BLOCK
    assert refusal(write_blocks, store, other, 0, 0) == Reason.WRONG_BLOCK
    assert not other.exists()


def test_a_file_is_not_written_over(store: Store, file: Path) -> None:
    file.write_bytes(b"something")
    with pytest.raises(FileExistsError):
        write_blocks(store, file, 1, 2)
    assert file.read_bytes() == b"something"


def test_what_cannot_be_written_leaves_no_file(
    store: Store, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(data: bytes) -> bytes:
        raise OSError(28, "no space")

    monkeypatch.setattr(ledger.archive, "seal", fail)
    assert refusal(write_blocks, store, file, 1, 2) == Reason.DISK_FULL
    assert not file.exists()


def test_one_flipped_bit_is_noticed(store: Store, file: Path) -> None:
    write_blocks(store, file, 1, HEIGHT)
    whole, random = file.read_bytes(), Random(1)
    for _ in range(300):
        data = bytearray(whole)
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        file.write_bytes(data)
        assert refusal(read, file) == Reason.CORRUPT


def test_a_file_that_is_cut_or_goes_on_is_refused(store: Store, file: Path) -> None:
    write_blocks(store, file, 1, HEIGHT)
    whole, random = file.read_bytes(), Random(2)
    for size in (0, 5, len(FIRST_LINE), *(random.randrange(len(whole)) for _ in range(100))):
        file.write_bytes(whole[:size])
        assert refusal(read, file) == Reason.CORRUPT
    file.write_bytes(whole + b"\0")
    assert refusal(read, file) == Reason.CORRUPT


def test_blocks_before_the_damage_are_read(store: Store, file: Path) -> None:
    write_blocks(store, file, 1, HEIGHT)
    file.write_bytes(file.read_bytes()[:-10])
    heights = []

    def go_through() -> None:
        with Archive.open(file) as archive:
            for block, _ in archive.blocks():
                heights.append(block.header.height)

    with pytest.raises(Invalid) as caught:
        go_through()
    assert heights == [1, 2, 3, 4, 5, 6]
    assert caught.value.detail == "block 7 in the file cannot be read: the file ends before it"


def test_what_is_sealed_may_still_be_wrong(store: Store, file: Path) -> None:
    """Given records that someone made up, then none is taken for a block that it is not."""
    write_blocks(store, file, 1, 1)
    head = file.read_bytes()[: len(FIRST_LINE) + 4 + 32 + len(pack_title(file))]

    def refused(block: Block, certificate: Certificate) -> str:
        record = seal(pack(Decided(pack(block), pack(certificate))))
        file.write_bytes(head + len(record).to_bytes(4) + record)
        with pytest.raises(Invalid) as caught:
            read(file)
        assert caught.value.reason == Reason.CORRUPT
        return caught.value.detail

    following = next_of(store, {})
    block, certificate = following.block, following.certificate
    assert refused(block, certificate) == "block 1 in the file is another one"
    other = replace(block, header=replace(block.header, chain=ChainId(b"another network.")))
    decided = replace(certificate, block=other.hash)
    assert refused(other, decided) == "block 1 in the file is another one"
    assert refused(other, certificate).endswith("the certificate is of another block")
    record = (2**31).to_bytes(4)
    file.write_bytes(head + record)
    assert refusal(read, file) == Reason.CORRUPT


def pack_title(file: Path) -> bytes:
    """The packed title of a file."""
    with Archive.open(file) as archive:
        return pack(archive.title)
