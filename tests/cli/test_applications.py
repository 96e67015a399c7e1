"""OpenAI's client and Ollama's, unmodified, against a gateway whose model another daemon serves."""

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import httpx
import ollama
import openai
import pytest

from tests.cli.applications import MODEL, TOKENS, Door, Stream, door, run_all
from tests.cli.command_line import run_within, wait_until

__all__ = ["door"]

PROMPT = "The for statement"
GREEDY = {"temperature": 0, "num_predict": 10}


def test_models_are_those_of_the_swarm(door: Door) -> None:
    assert [model.id for model in door.client().models.list()] == [MODEL]
    one = door.client().models.retrieve(MODEL)
    assert one.model_dump()["yuma"]["context"] == 512


def test_a_chat(door: Door, tmp_path: Path) -> None:
    raw = door.client().chat.completions.with_raw_response.create(
        model=MODEL,
        messages=[{"role": "user", "content": PROMPT}],
        max_tokens=12,
        temperature=0,
    )
    answer = raw.parse()
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12
    server = door.server.json("id")["peer_id"]
    assert raw.headers["x-yuma-server"] == server
    assert (raw.headers["x-yuma-verified"], raw.headers["x-yuma-cost"]) == ("signature", "0")

    kept = tmp_path / "receipt.json"
    kept.write_text(httpx.get(f"{door.url}/v1/receipts/{raw.headers['x-yuma-receipt']}").text)
    checked = run_within(tmp_path, "receipts", "verify", str(kept))
    assert checked.code == 0
    assert f"{server}" in checked.out


def test_an_answer_that_nobody_else_can_check(door: Door) -> None:
    """Given one server: the answer comes, and says that none of the checks asked for was made."""
    asked: dict[str, Any] = {"model": MODEL, "prompt": PROMPT, "max_tokens": 4, "logprobs": 1}
    raw = door.client().completions.with_raw_response.create(
        **asked, extra_headers={"x-yuma-verify": "1"}
    )
    assert raw.headers["x-yuma-verified"] == "0 of 1"
    told = raw.parse().choices[0].logprobs
    assert told is not None
    assert told.top_logprobs is not None
    assert [len(place) for place in told.top_logprobs] == [1] * 4
    with pytest.raises(openai.BadRequestError, match="x-yuma-verify is a number"):
        door.client().completions.create(**asked, extra_headers={"x-yuma-verify": "many"})


def test_a_chat_as_it_comes(door: Door) -> None:
    asked: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": [{"type": "text", "text": PROMPT}]}],
        "max_completion_tokens": 12,
        "temperature": 0,
    }
    whole = door.client().chat.completions.create(**asked)
    chunks = list(
        door.client().chat.completions.create(
            **asked, stream=True, stream_options={"include_usage": True}
        )
    )
    said = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(said) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage == whole.usage
    last = chunks[-2].model_dump()
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["yuma"]["verified"] == "signature"
    assert len(said) > 4


def test_completions(door: Door) -> None:
    answer = door.client().completions.create(
        model=MODEL, prompt=[PROMPT, "The while statement"], n=2, max_tokens=8, seed=1
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert len({choice.text for choice in answer.choices}) > 1
    again = door.client().completions.create(
        model=MODEL, prompt=[PROMPT, "The while statement"], n=2, max_tokens=8, seed=1
    )
    assert [one.text for one in again.choices] == [one.text for one in answer.choices]


def test_a_stop_string_ends_the_text_before_it(door: Door) -> None:
    def ask(**more: Any) -> Any:
        return door.client().completions.create(
            model=MODEL, prompt=PROMPT, max_tokens=40, temperature=0, **more
        )

    text = ask().choices[0].text
    stop = text[20:27]
    choice = ask(stop=[stop, "never there"]).choices[0]
    assert (choice.text, choice.finish_reason) == (text[: text.index(stop)], "stop")
    streamed = list(ask(stop=stop, stream=True))
    assert "".join(one.choices[0].text for one in streamed) == choice.text


def test_logprobs(door: Door) -> None:
    choice = door.client().chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": PROMPT}],
        max_tokens=5,
        temperature=0,
        logprobs=True,
        top_logprobs=3,
    ).choices[0]  # fmt: skip
    assert choice.logprobs is not None
    places = choice.logprobs.content
    assert places is not None
    assert "".join(place.token for place in places) == choice.message.content
    for place in places:  # greedy: what came is the likeliest
        assert place.logprob == place.top_logprobs[0].logprob <= 0
        assert [top.logprob for top in place.top_logprobs] == sorted(
            (top.logprob for top in place.top_logprobs), reverse=True
        )
    old = door.client().completions.create(
        model=MODEL, prompt=PROMPT, max_tokens=5, temperature=0, logprobs=2
    )
    assert old.choices[0].logprobs is not None
    assert old.choices[0].logprobs.token_logprobs == [place.logprob for place in places]


def test_embeddings(door: Door) -> None:
    texts = [f"The statement number {number}" for number in range(40)]
    coded = door.client().embeddings.create(model=MODEL, input=texts)  # as base64
    assert [row.index for row in coded.data] == list(range(40))
    plain = door.client().embeddings.create(model=MODEL, input=texts[7], encoding_format="float")
    assert coded.data[7].embedding == pytest.approx(plain.data[0].embedding, abs=1e-5)
    assert sum(one * one for one in plain.data[0].embedding) == pytest.approx(1, abs=1e-3)
    assert plain.usage.total_tokens > 3


def test_curl(door: Door) -> None:
    body = {"model": MODEL, "prompt": PROMPT, "max_tokens": 4, "stream": True}
    done = subprocess.run(
        ["curl", "-sN", f"{door.url}/v1/completions", "-H", "Content-Type: application/json",
         "-d", json.dumps(body)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line]
    assert lines[-1] == "data: [DONE]"
    assert all("choices" in json.loads(line.removeprefix("data: ")) for line in lines[:-1])


WRONG: list[tuple[dict[str, Any], str | None]] = [
    ({"messages": "hello"}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": 3}, "temperature"),
    ({"temperature": 10**400}, "temperature"),
    ({"temperature": float("nan")}, "temperature"),
    ({"top_p": -1}, "top_p"),
    ({"top_p": 10**400}, "top_p"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"n": 1000}, "n"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    ({"stop": ["a" * 65]}, "stop"),
    ({"seed": 2**64}, "seed"),
    ({"stream": "yes"}, "stream"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"presence_penalty": 0.5}, "presence_penalty"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"model": 7}, "model"),
    ({"messages": [{"role": "user", "content": "word " * 4000}]}, None),
]


@pytest.mark.parametrize(("change", "param"), WRONG, ids=[str(one)[:40] for one, _ in WRONG])
def test_what_is_wrong_is_said_in_openais_way(
    door: Door, change: dict[str, Any], param: str | None
) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}], **change}
    answer = httpx.post(f"{door.url}/v1/chat/completions", content=json.dumps(body), timeout=60)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert error["message"]


def test_a_model_that_nobody_serves(door: Door) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        door.client().chat.completions.create(
            model="gpt-9", messages=[{"role": "user", "content": "hi"}]
        )
    assert caught.value.code == "model_not_found"
    assert httpx.get(f"{door.url}/v1/models/gpt-9").status_code == 404


def test_what_is_no_json_and_what_is_too_large(door: Door) -> None:
    path = f"{door.url}/v1/chat/completions"
    for data in (b"{", b"[]", b"\xff", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"):
        answer = httpx.post(path, content=data)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")
    with pytest.raises(openai.APIStatusError) as caught:  # 10 MB: it reads why
        door.client().completions.create(model=MODEL, prompt="x" * 10_000_000)
    assert caught.value.status_code == 413
    assert caught.value.code == "request_too_large"
    with socket.create_connection(httpx.URL(door.url).netloc.decode().split(":")) as raw:
        head = (
            "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n"
        )
        raw.sendall(head.encode())
        assert raw.recv(100).startswith(b"HTTP/1.1 413")


def test_paths_and_methods_that_there_are_not(door: Door) -> None:
    for method, path, status in (
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/models", 405),
    ):
        answer = httpx.request(method, f"{door.url}{path}")
        assert (answer.status_code, answer.json()["error"]["type"]) == (
            status,
            "invalid_request_error",
        )


def test_a_strange_host_and_a_page_of_another_origin(door: Door) -> None:
    for headers in ({"Host": "attacker.example"}, {"Origin": "https://attacker.example"}):
        answer = httpx.get(f"{door.url}/v1/models", headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")


def test_who_goes_away_takes_the_question_along(door: Door) -> None:
    before = door.server.json("ps")["models"][0]["answered"]
    body = {"model": MODEL, "prompt": PROMPT, "max_tokens": 500, "n": 16, "stream": True}
    with httpx.stream("POST", f"{door.url}/v1/completions", json=body) as answer:
        next(answer.iter_lines())
    wait_until(lambda: door.server.json("ps")["models"][0]["running"] == 0)
    assert door.server.json("ps")["models"][0]["answered"] < before + 16


def test_no_stream_of_many_is_lost(door: Door) -> None:
    streams = [Stream(door.url, number) for number in range(40)]
    run_all(streams)
    assert [stream.tokens() for stream in streams] == [TOKENS] * 40


def test_a_client_that_reads_nothing_holds_no_turn(door: Door) -> None:
    before = door.server.json("ps")["models"][0]["answered"]
    idle = [Stream(door.url, number, tokens=60).connect() for number in range(20)]
    try:
        wait_until(lambda: door.server.json("ps")["models"][0]["answered"] == before + 20)
        stream = Stream(door.url, 0)
        run_all([stream])
        assert stream.tokens() == TOKENS
    finally:
        for connection in idle:
            connection.close()


# --- Ollama


@pytest.fixture
def ollama_client(door: Door) -> ollama.Client:
    return ollama.Client(host=door.url)


def test_ollama_sees_what_there_is(ollama_client: ollama.Client, door: Door) -> None:
    listed = ollama_client.list().models
    assert [model.model for model in listed] == [MODEL]
    assert ollama_client.ps().models == []  # it runs elsewhere
    shown = ollama_client.show(MODEL)
    assert shown.details is not None
    assert shown.details.parameter_size == "2.0M"
    assert httpx.get(f"{door.url}/api/version").json()["version"]


def test_ollama_chats(ollama_client: ollama.Client) -> None:
    messages = [{"role": "system", "content": "Python"}, {"role": "user", "content": PROMPT}]
    whole = ollama_client.chat(f"{MODEL}:latest", messages, options=GREEDY)
    parts = list(ollama_client.chat(MODEL, messages, options=GREEDY, stream=True))
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert (whole.done_reason, whole.eval_count) == ("length", 10)
    assert parts[-1].done
    assert len(parts) > 4


def test_ollama_generates_and_embeds(ollama_client: ollama.Client) -> None:
    whole = ollama_client.generate(MODEL, PROMPT, options=GREEDY, raw=True)
    again = ollama_client.generate(MODEL, PROMPT, options=GREEDY)
    assert whole.response == again.response  # the model has no template
    stop = whole.response[5:9]
    cut = ollama_client.generate(MODEL, PROMPT, options={**GREEDY, "stop": [stop]})
    assert cut.response == whole.response[: whole.response.index(stop)]
    found = ollama_client.embed(MODEL, ["one", "two"])
    assert len(found.embeddings) == 2


def test_ollamas_faults_are_a_sentence(ollama_client: ollama.Client, door: Door) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        ollama_client.generate("gpt-9", PROMPT)
    assert caught.value.status_code == 404
    assert "nobody in the swarm serves it" in caught.value.error
    for heat in (9, 10**400):
        with pytest.raises(ollama.ResponseError) as caught:
            ollama_client.chat(
                MODEL, [{"role": "user", "content": PROMPT}], options={"temperature": heat}
            )
        assert caught.value.status_code == 400
    answer = httpx.post(f"{door.url}/api/chat", content=b"{")
    assert (answer.status_code, answer.json()) == (400, {"error": "The request is not JSON"})
    answer = httpx.post(f"{door.url}/api/pull", json={"model": MODEL})
    assert answer.status_code == 404
