"""Pulls between nodes: from several at once, whoever dies or lies, and on from where one ended."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from ledger.errors import Invalid, Reason
from ledger.keys import KeyPair
from ledger.types import Hash
from models.catalog import open_model
from models.manifest import Manifest, described
from p2p.home import Home
from p2p.net.protocols import MODEL, Busy, GetChunk, GetManifest, Gone, ModelChunk
from p2p.net.streams import Bulk, Frames
from p2p.node import chunks
from p2p.node import pull as pulls
from p2p.node.node import Node
from p2p.node.pull import Dropped, Pulled, Told
from p2p.store import ModelStore
from tests.models.model_files import write_random
from tests.node.chains import SETTINGS, join

PATIENCE_S = 30


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of eleven chunks."""
    return write_random(tmp_path_factory.mktemp("model") / "source", layers=6)


@pytest.fixture(scope="module")
def digest(source: Path) -> str:
    return open_model(source).digest.hex()


@asynccontextmanager
async def running(home: Path, source: Path | None = None, **changed: Any) -> AsyncIterator[Node]:
    """A node; with a source it has that model in its store."""
    home.mkdir()
    node = Node.make(KeyPair.generate(), replace(SETTINGS, **changed), Home(home))
    if source is not None:
        node.store.add(source, None, lambda done, whole: None)
    async with node.run():
        yield node


async def pull(node: Node, reference: str, told: list[Told] | None = None) -> Pulled:
    heard = [] if told is None else told

    async def tell(each: Told) -> None:
        heard.append(each)

    with trio.fail_after(PATIENCE_S):
        return await node.pulls.pull(reference, tell)


async def refusal(node: Node, reference: str) -> Invalid:
    with pytest.raises(Invalid) as refused:
        await pull(node, reference)
    return refused.value


def answers(node: Node, change: Callable[[int, Any], Any]) -> list[int]:
    """Have a node give other answers; `change(count, answer)` gives the one that is sent.

    Gives the numbers of the chunks that it is asked for, as they are.
    """
    asked: list[int] = []

    async def handle(stream: Any) -> None:
        frames = Frames(stream, receives=MODEL.request, sends=MODEL.response)
        while (request := await frames.receive()) is not None:
            said = change(len(asked), await node.share._answer(request))
            if isinstance(request, GetChunk):
                asked.append(request.number)
            if said is None:
                await frames.reset()
                return
            await (frames.send_bulk(said) if isinstance(said, Bulk) else frames.send(said))

    node.host.handle(MODEL.id, handle)
    return asked


def same(a: Path, b: Path) -> bool:
    names = open_model(a).shape.files
    return all((a / name).read_bytes() == (b / name).read_bytes() for name in names)


async def test_a_model_comes_from_two_at_once(tmp_path: Path, source: Path, digest: str) -> None:
    async with (
        running(tmp_path / "a", source) as a,
        running(tmp_path / "b", source) as b,
        running(tmp_path / "c") as c,
    ):
        await join(c, a, b)
        pulled = await pull(c, digest)
        assert set(pulled.sources) == {a.host.peer_id, b.host.peer_id}
        assert sum(pulled.sources.values()) == pulled.model.size
        assert a.share.given + b.share.given == pulled.model.size
        assert same(pulled.model.directory, source)
        again = await pull(c, digest)
        assert again == Pulled(pulled.model, {})


async def test_who_dies_in_the_middle_is_done_without(
    tmp_path: Path, source: Path, digest: str
) -> None:
    async with (
        running(tmp_path / "a", source) as a,
        running(tmp_path / "b", source) as b,
        running(tmp_path / "c") as c,
    ):
        answers(a, lambda count, said: said if count < 2 else None)
        await join(c, a, b)
        pulled = await pull(c, digest)
        assert same(pulled.model.directory, source)
        assert not c.host.is_banned(a.host.peer_id)


def corrupt(said: Any) -> Any:
    if not isinstance(said, Bulk):
        return said
    return Bulk(said.head, bytes([said.data[0] ^ 1]) + said.data[1:])


def other(said: Any) -> Any:
    return Bulk(ModelChunk(said.head.number, 3), b"abc") if isinstance(said, Bulk) else said


@pytest.mark.parametrize("lie", [corrupt, other])
async def test_who_gives_a_wrong_chunk_is_cut_off_and_named(
    tmp_path: Path, source: Path, digest: str, lie: Callable[[Any], Any]
) -> None:
    async with (
        running(tmp_path / "a", source) as a,
        running(tmp_path / "b", source) as b,
        running(tmp_path / "c") as c,
    ):
        answers(a, lambda count, said: lie(said))
        await join(c, a, b)
        told: list[Told] = []
        pulled = await pull(c, digest, told)
        assert same(pulled.model.directory, source)
        dropped = [each for each in told if isinstance(each, Dropped)]
        assert [each.peer for each in dropped] == [a.host.peer_id]
        assert str(Reason.WRONG_CHUNK) in dropped[0].why
        assert c.host.is_banned(a.host.peer_id)
        assert not c.host.is_banned(b.host.peer_id)
        assert pulled.sources[b.host.peer_id] == pulled.model.size


async def test_who_gives_another_manifest_is_cut_off(
    tmp_path: Path, source: Path, digest: str
) -> None:
    async with (
        running(tmp_path / "a", source) as a,
        running(tmp_path / "b", source) as b,
        running(tmp_path / "c") as c,
    ):
        answers(a, lambda _, said: Manifest(said.files[:1]) if hasattr(said, "files") else said)
        await join(c, a)
        assert (await refusal(c, digest)).reason is Reason.NO_MODEL
        assert c.host.is_banned(a.host.peer_id)
        await join(c, b)
        assert set((await pull(c, digest)).sources) == {b.host.peer_id}


async def test_a_pull_goes_on_where_one_ended(
    tmp_path: Path, source: Path, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a source that has gone after four chunks, then another gives only the rest."""
    monkeypatch.setattr(chunks, "RETRY_S", 0.01)
    async with (
        running(tmp_path / "a", source) as a,
        running(tmp_path / "b", source) as b,
        running(tmp_path / "c") as c,
    ):
        first = answers(a, lambda count, said: said if count < 4 else None)
        await join(c, a)
        error = await refusal(c, digest)
        assert error.reason is Reason.NO_MODEL
        assert "a pull goes on from there" in error.detail
        await c.host.disconnect(a.host.peer_id)
        await join(c, b)
        pulled = await pull(c, digest)
        assert same(pulled.model.directory, source)
        given = sum(pulled.sources.values())
        assert 0 < given < pulled.model.size
        assert given == b.share.given
        assert len(set(first)) >= 4


async def test_who_has_no_room_is_asked_again(
    tmp_path: Path, source: Path, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "BUSY_S", 0.01)
    monkeypatch.setattr(pulls, "BUSY_S", 0.01)
    async with running(tmp_path / "a", source) as a, running(tmp_path / "c") as c:
        manifests: list[Any] = []

        def change(count: int, said: Any) -> Any:
            if isinstance(said, Manifest):
                manifests.append(said)
                return Busy() if len(manifests) == 1 else said
            return Busy() if count % 3 == 1 else said

        answers(a, change)
        await join(c, a)
        assert same((await pull(c, digest)).model.directory, source)


async def test_who_is_slow_loses_its_last_chunks(
    tmp_path: Path, source: Path, digest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given one that gives two chunks and then nothing, while its stream stays open."""
    monkeypatch.setattr(chunks, "SLOW_S", 0.3)
    async with (
        running(tmp_path / "a", source) as a,
        running(tmp_path / "b", source) as b,
        running(tmp_path / "c") as c,
    ):

        async def handle(stream: Any) -> None:
            frames = Frames(stream, receives=MODEL.request, sends=MODEL.response)
            for _ in range(3):
                said = await a.share._answer(await frames.receive())
                await (frames.send_bulk(said) if isinstance(said, Bulk) else frames.send(said))
            await trio.sleep_forever()

        a.host.handle(MODEL.id, handle)
        await join(c, a, b)
        began = trio.current_time()
        assert same((await pull(c, digest)).model.directory, source)
        assert trio.current_time() - began < chunks.CHUNK_S / 2


async def test_the_upload_rate_is_kept(tmp_path: Path, source: Path, digest: str) -> None:
    size = sum(path.stat().st_size for path in source.iterdir())
    async with running(tmp_path / "a", source, upload_rate=8) as a, running(tmp_path / "c") as c:
        await join(c, a)
        began = trio.current_time()
        await pull(c, digest)
        assert trio.current_time() - began > (size - 2 * 2**20) / 8e6 - 0.3


async def test_a_long_wait_for_the_upload_rate_is_refused_at_once(
    tmp_path: Path, source: Path
) -> None:
    node = Node.make(KeyPair.generate(), replace(SETTINGS, upload_rate=1), Home(tmp_path))
    model = node.store.add(source, None, lambda done, whole: None)
    name = open_model(model.directory).digest
    said: list[Any] = []

    async def ask(number: int) -> None:
        said.append(await node.share._answer(GetChunk(name, number)))

    with trio.move_on_after(0.5):
        async with trio.open_nursery() as nursery:
            for number in range(9):
                nursery.start_soon(ask, number)
    assert Busy() in said
    assert await node.share._answer(GetManifest(name)) == Busy()


async def test_manifests_count_as_well(tmp_path: Path, source: Path, autojump_clock: Any) -> None:
    """Given one of some 400 bytes at a megabyte a second, then 4000 take over a second."""
    node = Node.make(KeyPair.generate(), replace(SETTINGS, upload_rate=1), Home(tmp_path))
    model = node.store.add(source, None, lambda done, whole: None)
    ask, began = GetManifest(Hash(bytes.fromhex(model.digest))), trio.current_time()
    for _ in range(4000):
        answer = await node.share._answer(ask)
        assert isinstance(answer, Manifest)
    assert trio.current_time() - began > 4000 * answer.weight / 1e6 - 0.3 > 1


async def test_what_has_changed_on_disk_is_not_given(tmp_path: Path, source: Path) -> None:
    node = Node.make(KeyPair.generate(), SETTINGS, Home(tmp_path))
    model = node.store.add(source, None, lambda done, whole: None)
    name = open_model(model.directory).digest
    assert isinstance(await node.share._answer(GetManifest(name)), Manifest)
    assert isinstance(await node.share._answer(GetChunk(name, 1)), Bulk)
    assert await node.share._answer(GetChunk(name, 100)) == Gone()
    with (model.directory / "model.safetensors").open("ab") as file:
        file.write(b"x")
    assert await node.share._answer(GetChunk(name, 1)) == Gone()
    assert await node.share._answer(GetManifest(name)) == Gone()


async def test_nothing_is_given_where_nothing_is_shared(
    tmp_path: Path, source: Path, digest: str
) -> None:
    async with running(tmp_path / "a", source, share=False) as a, running(tmp_path / "c") as c:
        await join(c, a)
        assert (await refusal(c, digest)).reason is Reason.NO_MODEL
        assert (await refusal(c, "nobody-has-this")).reason is Reason.NO_MODEL


async def test_what_does_not_fit_is_refused_before_its_first_chunk(
    tmp_path: Path, source: Path, digest: str
) -> None:
    async with running(tmp_path / "a", source) as a, running(tmp_path / "c") as c:
        c.pulls.store = ModelStore(tmp_path / "c" / "models", quota=1_000_000)
        await join(c, a)
        assert (await refusal(c, digest)).reason is Reason.NO_ROOM
        assert a.share.given == 0


async def test_files_that_no_model_may_have_are_refused_before_the_first(tmp_path: Path) -> None:
    """A manifest whose hash is right can name what it likes."""
    directory = tmp_path / "m"
    write_random(directory, layers=1)
    model = open_model(directory)
    evil = Manifest(
        (*model.described.manifest.files, replace(model.described.manifest.files[0], name="x.py"))
    )
    async with running(tmp_path / "a") as a, running(tmp_path / "c") as c:

        async def handle(stream: Any) -> None:
            frames = Frames(stream, receives=MODEL.request, sends=MODEL.response)
            while await frames.receive() is not None:
                await frames.send(evil)

        a.host.handle(MODEL.id, handle)
        await join(c, a)
        error = await refusal(c, evil.digest.hex())
        assert error.reason is Reason.BAD_MODEL
        assert "x.py" in error.detail


@pytest.mark.parametrize(
    "fields",
    [
        {"auto_map": {"AutoModelForCausalLM": "modeling.Evil"}},
        {"kind": "upstream", "url": "http://192.0.2.1/v1", "model": "m"},
    ],
)
async def test_what_the_config_rules_out_is_refused_before_the_weights(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    directory = write_random(tmp_path / "m")
    small = directory / "config.json", directory / "tokenizer.json"
    small[0].write_text(json.dumps(json.loads(small[0].read_text()) | fields))
    files = described(directory, [path.name for path in directory.iterdir()])
    async with running(tmp_path / "a") as a, running(tmp_path / "c") as c:
        a.share._open[files.manifest.digest] = directory, files
        await join(c, a)
        assert (await refusal(c, files.manifest.digest.hex())).reason is Reason.BAD_MODEL
        assert a.share.given == sum(path.stat().st_size for path in small)
        assert c.store.models() == []


async def test_a_model_is_pulled_once_at_a_time(tmp_path: Path, digest: str) -> None:
    node = Node.make(KeyPair.generate(), SETTINGS, Home(tmp_path))
    node.pulls.under_way.add(Hash(bytes.fromhex(digest)))
    assert (await refusal(node, digest)).reason is Reason.BUSY
