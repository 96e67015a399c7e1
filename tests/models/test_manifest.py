"""Manifests: a digest names exact bytes, each chunk is checked alone, and what is kept counts only
while no file has changed."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from shutil import copytree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.codec import pack, unpack
from ledger.errors import Invalid, Reason
from models import manifest
from models.files import KEPT
from models.manifest import (
    CHUNK_BYTES,
    HASH_BYTES,
    Chunk,
    File,
    Manifest,
    chunk_hash,
    describe,
    described,
    keep,
    read_chunk,
    read_kept,
    validate_manifest,
)

NAMES = ("config.json", "model.safetensors")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Two files: one of a chunk, one of two and a bit."""
    (tmp_path / "config.json").write_bytes(b"{}")
    (tmp_path / "model.safetensors").write_bytes(b"abc" * CHUNK_BYTES)
    (tmp_path / "model.safetensors").open("ab").write(b"!")
    return tmp_path


def reason_of(call: Callable[[], object]) -> Reason:
    with pytest.raises(Invalid) as refusal:
        call()
    return refusal.value.reason


def test_chunks_are_numbered_through_all_files(directory: Path) -> None:
    found = describe(directory, NAMES).manifest
    assert (found.names, found.size, found.chunks) == (NAMES, 2 + 3 * CHUNK_BYTES + 1, 5)
    places = [(one.name, one.offset, one.size) for one in map(found.chunk, range(5)) if one]
    assert places == [
        ("config.json", 0, 2),
        ("model.safetensors", 0, CHUNK_BYTES),
        ("model.safetensors", CHUNK_BYTES, CHUNK_BYTES),
        ("model.safetensors", 2 * CHUNK_BYTES, CHUNK_BYTES),
        ("model.safetensors", 3 * CHUNK_BYTES, 1),
    ]
    assert found.chunk(5) is None


def test_each_chunk_is_checked_alone(directory: Path) -> None:
    found = describe(directory, NAMES)
    for number in range(found.manifest.chunks):
        data, chunk = read_chunk(directory, found, number), found.manifest.chunk(number)
        assert data is not None
        assert chunk is not None
        chunk.check(data)
        for wrong in (data[:-1], data + b"x", bytes([data[0] ^ 1]) + data[1:]):
            assert reason_of(lambda chunk=chunk, wrong=wrong: chunk.check(wrong)) == (  # type: ignore[misc]
                Reason.WRONG_CHUNK
            )
    assert read_chunk(directory, found, 5) is None


def test_the_digest_is_of_names_sizes_and_bytes(directory: Path) -> None:
    first = describe(directory, NAMES).manifest
    assert describe(directory, NAMES[::-1]).manifest == first
    (directory / "config.json").write_bytes(b"{ }")
    second = describe(directory, NAMES).manifest
    (directory / "config.json").rename(directory / "modules.json")
    third = describe(directory, ("modules.json", "model.safetensors")).manifest
    assert len({first.digest, second.digest, third.digest}) == 3


def test_what_is_kept_counts_until_a_file_changes(directory: Path, monkeypatch) -> None:
    assert read_kept(directory) is None
    fresh = describe(directory, NAMES)
    keep(directory, fresh.manifest)
    monkeypatch.setattr(manifest, "describe", None)  # nothing is hashed again
    assert described(directory, NAMES) == fresh
    monkeypatch.undo()
    weights = directory / "model.safetensors"
    before = weights.stat()
    with weights.open("r+b") as file:
        file.write(b"?")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))  # who changes it may hide that
    assert read_kept(directory) is None
    assert read_chunk(directory, fresh, 1) is None
    assert described(directory, NAMES).manifest.digest != fresh.manifest.digest


def test_a_manifest_from_elsewhere_does_not_count(
    directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A directory that is copied with times and all is hashed again."""
    keep(directory, describe(directory, NAMES).manifest)
    copy = copytree(directory, tmp_path_factory.mktemp("other") / "copy")
    assert (copy / KEPT).exists()
    assert read_kept(copy) is None


def test_a_file_that_changes_while_it_is_hashed_is_refused(directory: Path) -> None:
    def grow(name: str, offset: int, data: bytes) -> None:
        with (directory / name).open("ab") as file:
            file.write(b"more")

    assert reason_of(lambda: describe(directory, ("config.json",), grow)) == Reason.BAD_MODEL


def test_more_than_a_manifest_holds_is_refused(directory: Path) -> None:
    """Before any of it is read; the file has a hole."""
    with (directory / "model.safetensors").open("r+b") as file:
        file.truncate(65 * 2**30)
    assert reason_of(lambda: describe(directory, NAMES)) == Reason.BAD_MODEL


def file(name: str, size: int = 3) -> File:
    return File(name, size, bytes(HASH_BYTES * -(-size // CHUNK_BYTES)))


@pytest.mark.parametrize(
    "files",
    [
        (file("model.safetensors"), file("config.json")),
        (file("config.json"), file("config.json")),
        (file("config.json"), file("model.pt2")),
        (file("config.json"), file("pytorch_model.bin")),
        (file("modeling.py"),),
        (file("../config.json"),),
        (file("/etc/passwd"),),
        (file("a/model.safetensors"),),
        (file(".safetensors"),),
        (file("manifest"),),
        (file("model.safetensors\n"),),
        (replace(file("config.json"), hashes=b""),),
        (replace(file("config.json"), hashes=bytes(2 * HASH_BYTES)),),
        (replace(file("config.json"), size=2**62),),
        (file("config.json", 2**16 + 1),),
        (file("chat_template.jinja", 2**16 + 1),),
        (file("tokenizer.json", 2**26 + 1),),
        (file("tokenizer_config.json", 2**23 + 1),),
    ],
)
def test_what_peers_may_not_say(files: tuple[File, ...]) -> None:
    assert reason_of(lambda: validate_manifest(Manifest(files))) == Reason.BAD_MODEL


def test_what_peers_may_say() -> None:
    names = (
        *("1_Pooling/config.json", "chat_template.jinja", "config.json"),
        *("consolidated.00.safetensors", "model-00001-of-00002.safetensors"),
        *("model.safetensors.index.json", "modules.json", "tokenizer.json"),
    )
    validate_manifest(Manifest(tuple(map(file, names))))
    validate_manifest(Manifest((file("config.json", 2**16), file("model.safetensors", 2**30))))


@given(st.lists(st.tuples(st.text(min_size=1, max_size=30), st.integers(0, 3 * CHUNK_BYTES))))
def test_a_manifest_is_a_record(rows: list[tuple[str, int]]) -> None:
    made = Manifest(tuple(file(name, size) for name, size in rows))
    if rows and all(len(name.encode()) <= 128 for name, _ in rows):
        assert unpack(Manifest, pack(made), 2**20) == made
    assert made.chunks == sum(1 for _ in iter_chunks(made))


def iter_chunks(made: Manifest) -> Iterator[Chunk]:
    number = 0
    while (chunk := made.chunk(number)) is not None:
        assert 0 < chunk.size <= CHUNK_BYTES
        yield chunk
        number += 1


def test_a_chunk_is_hashed_as_such() -> None:
    hashed = blake2b(b"abc", digest_size=32, person=b"yuma/chunk")
    assert chunk_hash(b"abc") == hashed.digest()
