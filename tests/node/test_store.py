"""The store of a home: models appear whole, go by name and digest, and fit or are refused."""

import json
import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger.errors import Invalid, Reason
from models.catalog import open_model, shipped_directory
from models.manifest import Manifest, described, read_chunk, read_kept
from p2p import store as module
from p2p.store import ModelStore, Stored
from tests.models.model_files import write_random


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "home" / "models", quota=0)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A model of five chunks."""
    return write_random(tmp_path / "source")


def add(store: ModelStore, source: Path, name: str | None = None) -> Stored:
    return store.add(source, name, lambda done, whole: None)


def refusal(call: Callable[[], object], reason: Reason) -> str:
    with pytest.raises(Invalid) as refused:
        call()
    assert refused.value.reason is reason
    return refused.value.detail


def manifest_of(source: Path) -> Manifest:
    return open_model(source).described.manifest


def chunks_of(source: Path) -> list[bytes]:
    files = described(source, manifest_of(source).names)
    found = [read_chunk(source, files, number) for number in range(files.manifest.chunks)]
    return [data for data in found if data is not None]


def test_what_is_added_is_found_by_its_name_and_digest(store: ModelStore, source: Path) -> None:
    told: list[tuple[int, int]] = []
    model = store.add(source, "mine", lambda done, whole: told.append((done, whole)))
    assert told[-1] == (model.size, model.size)
    digest = open_model(source).digest
    assert model.digest == digest.hex()
    assert store.models() == [model]
    assert store.digests() == [digest]
    for reference in ("mine", model.digest, model.digest[:8]):
        assert store.find(reference) == model
        assert store.locate(reference) == (model.directory, "mine")
    for reference in ("other", model.digest[:7], "", "../models"):
        assert store.find(reference) is None
    assert open_model(model.directory).digest == digest
    assert not list(store.path.glob(".partial/*"))


def test_it_goes_by_its_own_name_unless_told(store: ModelStore, source: Path) -> None:
    assert add(store, source).name == "random-0"
    assert add(store, source, "b").name == "b"
    assert [one.name for one in store.models()] == ["b"]
    assert add(store, source).name == "b", "what serves it by that name finds it still"


def test_two_models_cannot_be_called_the_same(
    store: ModelStore, source: Path, tmp_path: Path
) -> None:
    add(store, source, "a")
    other = write_random(tmp_path / "other", layers=1, seed=1)
    assert "is called a here" in refusal(lambda: add(store, other, "a"), Reason.BAD_MODEL)
    assert "is called docs-gpt" in refusal(lambda: add(store, other, "docs-gpt"), Reason.BAD_MODEL)
    for name in ("a\nb", "a/b", "x" * 129):
        refusal(lambda name=name: add(store, other, name), Reason.BAD_MODEL)  # type: ignore[misc]
    assert len(store.models()) == 1
    assert add(store, shipped_directory("docs-gpt")).name == "docs-gpt"


def test_what_reads_as_a_digest_is_only_ever_one(
    store: ModelStore, source: Path, tmp_path: Path
) -> None:
    """Else a model could be called by the digest of another, and be had in its place."""
    model = add(store, source, "a")
    other = write_random(tmp_path / "other", layers=1, seed=1)
    for name in (model.digest, model.digest[:8], "0123abcd", model.digest.upper()):
        detail = refusal(lambda name=name: add(store, other, name), Reason.BAD_MODEL)  # type: ignore[misc]
        assert "reads as the digest of another model" in detail
    kept = add(store, other, None)
    assert add(store, other, kept.digest[:12]).name == kept.digest[:12]
    names = {"a": model.digest, model.digest: kept.digest, model.digest[:9]: kept.digest}
    (store.path / "names.json").write_text(json.dumps(names))  # as an older version took them
    for reference in names:
        assert store.find(reference) == model


def test_other_directories_are_not_looked_into(store: ModelStore, source: Path) -> None:
    model = add(store, source)
    for name in ("backup", "abc", "x" * 64, model.digest.upper(), f"{model.digest}.old"):
        for place in (store.path / name, store.path / ".partial" / name):
            place.mkdir()
            (place / "manifest").write_bytes(b"x")
    assert store.digests() == [bytes.fromhex(model.digest)]
    assert store.models() == [model]


def test_shipped_models_are_located_too(store: ModelStore) -> None:
    assert store.locate("docs-gpt") == (shipped_directory("docs-gpt"), "")
    refusal(lambda: store.locate("nope"), Reason.NO_MODEL)


def test_what_is_no_model_is_not_stored(store: ModelStore, source: Path) -> None:
    weights = source / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    refusal(lambda: add(store, source), Reason.BAD_MODEL)
    (source / "x.bin").write_bytes(b"")
    assert "x.bin" in refusal(lambda: add(store, source), Reason.BAD_MODEL)
    assert store.models() == []


def test_a_program_is_not_stored(store: ModelStore, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"kind": "tensor", "name": "p", "parameters": 1,'
        ' "input": {"dtype": "float32", "shape": [null]}}'
    )
    (tmp_path / "model.pt2").write_bytes(b"a program")
    assert "model.pt2 is a program" in refusal(lambda: add(store, tmp_path), Reason.BAD_MODEL)


def test_what_is_removed_is_gone(store: ModelStore, source: Path) -> None:
    model = add(store, source)
    store.remove(model)
    assert store.models() == []
    assert store.find("random-0") is None
    assert [path.name for path in store.path.iterdir() if path.name != ".partial"] == ["names.json"]


def test_a_quota_is_kept(store: ModelStore, source: Path) -> None:
    store.quota = 1_000_000
    detail = refusal(lambda: add(store, source), Reason.NO_ROOM)
    assert detail == "5 MB are due, and models_max, 0 GB, leaves 1 MB"
    refusal(lambda: store.begin(manifest_of(source)), Reason.NO_ROOM)
    store.quota = 8_000_000
    add(store, source)
    store.check_room(2_000_000)
    refusal(lambda: store.check_room(4_000_000), Reason.NO_ROOM)


def test_a_quota_is_kept_by_several_at_once(
    store: ModelStore, source: Path, tmp_path: Path
) -> None:
    """What is begun has its room, all of it, until it has ended."""
    store.quota = 8_000_000
    other = write_random(tmp_path / "other", seed=1)
    partial = store.begin(manifest_of(source))
    refusal(lambda: store.begin(manifest_of(other)), Reason.NO_ROOM)
    refusal(lambda: add(store, other), Reason.NO_ROOM)
    partial.take(1, chunks_of(source)[1])
    store.check_room(2_000_000)  # what has come does not count twice
    refusal(lambda: store.check_room(4_000_000), Reason.NO_ROOM)
    partial.close()
    store.check_room(6_000_000)

    def begin(done: int, whole: int) -> None:
        refusal(lambda: store.begin(manifest_of(source)), Reason.NO_ROOM)
        raise Invalid(Reason.BUSY, "it ends here")

    refusal(lambda: store.add(other, None, begin), Reason.BUSY)
    store.begin(manifest_of(source)).close()


def test_the_disk_is_not_filled(store: ModelStore, source: Path, monkeypatch) -> None:
    """Whatever the quota: the ledger needs some of it too."""
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage(520 * 2**20))
    assert refusal(lambda: store.check_room(10**10), Reason.NO_ROOM) == (
        "10,000 MB are due, and the disk can give 8 MB"
    )
    store.check_room(8 * 2**20)


def test_chunks_come_in_any_order(store: ModelStore, source: Path) -> None:
    manifest, chunks = manifest_of(source), chunks_of(source)
    partial = store.begin(manifest)
    assert partial.missing == set(range(len(chunks)))
    assert partial.here == 0
    for number in reversed(range(len(chunks))):
        partial.take(number, chunks[number])
    partial.close()
    model = store.finish(partial, "")
    assert (model.name, store.models()) == ("random-0", [model])
    for name in manifest.names:
        assert (model.directory / name).read_bytes() == (source / name).read_bytes()


def test_a_wrong_chunk_is_not_kept(store: ModelStore, source: Path) -> None:
    chunks = chunks_of(source)
    partial = store.begin(manifest_of(source))
    for wrong in (chunks[1], chunks[2][:-1], b""):
        refusal(lambda wrong=wrong: partial.take(2, wrong), Reason.WRONG_CHUNK)  # type: ignore[misc]
    partial.close()
    assert 2 in store.begin(manifest_of(source)).missing


def test_a_pull_goes_on_with_what_is_really_there(store: ModelStore, source: Path) -> None:
    """Chunks count by their bytes: one that a crash left damaged, or unwritten, is due again."""
    chunks = chunks_of(source)
    partial = store.begin(manifest_of(source))
    for number in (0, 1, 2):
        partial.take(number, chunks[number])
    partial.close()
    part = store.find(partial.manifest.digest.hex())
    assert part is not None
    assert not part.is_whole
    with (part.directory / "model.safetensors").open("r+b") as file:
        file.write(b"?")
    again = store.begin(partial.manifest)
    assert again.missing == {1, *range(3, len(chunks))}
    assert again.here == len(chunks[0]) + len(chunks[2])
    store.remove(part)
    assert store.models() == []


def test_files_that_are_no_model_are_removed_at_the_end(
    store: ModelStore, source: Path, tmp_path: Path
) -> None:
    """Chunks may be what their manifest says, and the whole a lie: here of its header."""
    weights = source / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[8] = ord("[")
    weights.write_bytes(data)
    names = ("config.json", "model.safetensors", "tokenizer.json")
    files = described(source, names)
    partial = store.begin(files.manifest)
    for number in range(files.manifest.chunks):
        partial.take(number, read_chunk(source, files, number) or b"")
    partial.close()
    refusal(lambda: store.finish(partial, ""), Reason.BAD_MODEL)
    assert store.models() == []


def test_what_a_killed_import_left_goes(store: ModelStore) -> None:
    left = store.path / ".partial" / "import-0123"
    left.mkdir(parents=True)
    (left / "config.json").write_text("{}")
    ModelStore(store.path, 0)
    assert not left.exists()


def test_damaged_names_name_nothing(store: ModelStore, source: Path) -> None:
    model = add(store, source, "a")
    for damage in ("", "[1]", '{"a": 7}', "\0"):
        (store.path / "names.json").write_text(damage)
        assert store.find("a") is None
        assert store.find(model.digest) is not None
    os.unlink(store.path / "names.json")
    assert add(store, source, "a").name == "a"


def test_a_store_that_was_copied_is_hashed_once_more(
    store: ModelStore, source: Path, tmp_path: Path
) -> None:
    add(store, source, "a")
    copy = ModelStore(shutil.copytree(store.path, tmp_path / "copy"), 0)
    (model,) = copy.models()
    assert read_kept(model.directory) is None
    assert copy.locate("a") == (model.directory, "a")
    assert read_kept(model.directory) is not None


def test_what_has_changed_on_disk_is_not_served(store: ModelStore, source: Path) -> None:
    model = add(store, source, "a")
    with (model.directory / "model.safetensors").open("r+b") as file:
        file.seek(10_000)
        file.write(b"rot")
    assert "has changed on disk" in refusal(lambda: store.locate("a"), Reason.BAD_MODEL)


def test_who_pulls_by_a_name_has_it_under_that(store: ModelStore, source: Path) -> None:
    for name, called in (("given", "given"), ("docs-gpt", manifest_of(source).digest.hex()[:12])):
        partial = store.begin(manifest_of(source))
        for number, data in enumerate(chunks_of(source)):
            partial.take(number, data)
        partial.close()
        assert store.finish(partial, name).name == called
        assert [one.name for one in store.models()] == [called]
