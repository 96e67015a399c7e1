"""An OpenAI-compatible engine behind a worker: a real HTTP server, a real worker process."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.codec import pack
from ledger.errors import Invalid, Reason
from models.backends.upstream import BYTES, text_of, tokens_of
from models.catalog import open_model
from models.pipe import Cancel, Done, Failed, Part, Ready, Submit
from models.types import Chat, Finish, Kind, Message, Role, Sampling
from tests.models.model_worker import Worker, running_worker, text_job

WORDS = ("The", " answer", " is", " naïve", " 🙂", ".")
KEY = "secret"


class Engine(BaseHTTPRequestHandler):
    """Echoes the last word of what it is given, then WORDS; at `fail` it does."""

    asked: list[dict[str, Any]] = []  # noqa: RUF012

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        Engine.asked.append(body | {"path": self.path, "key": self.headers["authorization"]})
        prompt = body.get("prompt") or body["messages"][-1]["content"]
        if prompt == "fail":
            return self.send_error(500)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        begun = prompt.partition("|")[2]
        for number, word in enumerate(WORDS):
            if begun.startswith("".join(WORDS[: number + 1])):
                continue
            piece = {"text": word} if "prompt" in body else {"delta": {"content": word}}
            self.say({"choices": [piece]})
        self.say({"choices": [{"finish_reason": "stop"}]})
        self.say({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 6}})
        self.wfile.write(b"data: [DONE]\n\n")
        return None

    def say(self, event: object) -> None:
        self.wfile.write(f": a comment\n\ndata: {json.dumps(event)}\n\n".encode())
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass


def write_upstream(directory: Path, url: object, **fields: object) -> Path:
    directory.mkdir(exist_ok=True)
    config = {"kind": "upstream", "name": "behind", "url": url, "model": "big", "context": 4096}
    (directory / "config.json").write_text(json.dumps(config | fields))
    return directory


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    directory = write_upstream(tmp_path_factory.mktemp("m") / "behind", url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YUMA_UPSTREAM_KEY", KEY)
        with running_worker(directory, "--slots", "2") as started:
            ready = started.first()
            assert isinstance(ready, Ready)
            card = ready.card
            assert (card.name, card.kind, card.context) == ("behind", Kind.TEXT, 4096)
            assert card.engine == "upstream/openai/threads-1"
            assert card.digest == open_model(directory).digest
            yield started
    server.shutdown()


def text(replies: list[Part | Done | Failed]) -> str:
    parts = [reply for reply in replies if isinstance(reply, Part)]
    assert b"".join(text_of(part.tokens) for part in parts) == b"".join(p.data for p in parts)
    return b"".join(part.data for part in parts).decode()


def test_a_text_is_streamed(worker: Worker) -> None:
    worker.send(text_job(1, "hello", temperature=700, seed=4, max_tokens=100))
    replies = worker.collect(1)[1]
    assert text(replies) == "".join(WORDS)
    count = -(-len("".join(WORDS).encode()) // BYTES)
    assert replies[-1] == Done(1, Finish.STOP, prompt_tokens=11, output_tokens=count)
    asked = Engine.asked[-1]
    assert (asked["path"], asked["key"]) == ("/v1/completions", f"Bearer {KEY}")
    assert (asked["model"], asked["temperature"], asked["seed"]) == ("big", 0.7, 4)


def test_a_chat_is_passed_on_as_it_is(worker: Worker) -> None:
    chat = Chat((Message(Role.SYSTEM, b"be brief"), Message(Role.USER, b"hello")))
    worker.send(Submit(1, Kind.CHAT, pack(chat), (), Sampling(stop=("!",)), b"", 60_000))
    assert text(worker.collect(1)[1]) == "".join(WORDS)
    asked = Engine.asked[-1]
    assert asked["path"] == "/v1/chat/completions"
    assert asked["messages"] == [{"role": "system", "content": "be brief"},
                                 {"role": "user", "content": "hello"}]  # fmt: skip
    assert asked["stop"] == ["!"]


def test_an_answer_that_broke_off_is_asked_on_for(worker: Worker) -> None:
    """The engine hears the prompt with what is out; what it adds makes the same text."""
    prefix = tokens_of(b"The answer")
    worker.send(text_job(1, "q|", prefix=prefix))
    assert "The answer" + text(worker.collect(1)[1]) == "".join(WORDS)
    assert Engine.asked[-1]["prompt"] == "q|The answer"


def test_the_token_limit_cuts_the_text(worker: Worker) -> None:
    worker.send(text_job(1, "hello", max_tokens=2))
    replies = worker.collect(1)[1]
    assert text(replies) == "The an"
    assert replies[-1] == Done(1, Finish.LENGTH, 0, 2)


def test_what_the_engine_cannot_do_fails_one_job(worker: Worker) -> None:
    worker.send(text_job(1, "fail"), text_job(2, "hello"), Cancel(7))
    replies = worker.collect(1, 2)
    detail = "the engine behind it answers 500 Internal Server Error"
    assert replies[1] == [Failed(1, Reason.MODEL_FAILED, detail)]
    assert text(replies[2]) == "".join(WORDS)


@pytest.mark.parametrize(
    ("job", "detail"),
    [
        (
            Submit(1, Kind.EMBEDDING, b"", (), Sampling(), b"", 9),
            "writes text and does nothing else",
        ),
        (text_job(1, "x", likely=1), "does not tell how likely"),
        (Submit(1, Kind.CHAT, b"", (), Sampling(), b"\1a\0\0", 9), "is not resumed"),
        (text_job(1, "x", prefix=b"\0abc"), "not of this model's tokens"),
        (Submit(1, Kind.TEXT, b"\xff", (), Sampling(), b"", 9), "not UTF-8 text"),
        (text_job(1, ""), "the prompt is empty"),
    ],
)
def test_what_cannot_be_passed_on_is_refused(worker: Worker, job: Submit, detail: str) -> None:
    worker.send(job)
    (failed,) = worker.collect(1)[1]
    assert isinstance(failed, Failed)
    assert failed.reason is Reason.BAD_REQUEST
    assert detail in failed.detail


def test_an_engine_that_is_away_fails_its_jobs(tmp_path: Path) -> None:
    with running_worker(write_upstream(tmp_path / "away", "http://127.0.0.1:1/v1")) as worker:
        assert isinstance(worker.first(), Ready)
        worker.send(text_job(1, "hello"))
        (failed,) = worker.collect(1)[1]
        assert isinstance(failed, Failed)
        assert failed.detail.startswith("the engine behind it: ConnectionRefusedError")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "127.0.0.1:8000", "http://a b/v1", 7, None])
def test_an_engine_is_at_a_url(tmp_path: Path, url: object) -> None:
    with pytest.raises(Invalid, match="its url is not like"):
        open_model(write_upstream(tmp_path / "m", url))


@given(st.binary(max_size=40))
def test_tokens_are_the_text(data: bytes) -> None:
    assert text_of(tokens_of(data)) == data
    assert len(tokens_of(data)) == 4 * -(-len(data) // BYTES)
