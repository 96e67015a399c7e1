"""Ollama's own client, unmodified, against a gateway whose model another daemon serves."""

import httpx
import ollama
import pytest

from tests.cli.applications import MODEL, Door, door

__all__ = ["door"]

PROMPT = "The for statement"
GREEDY = {"temperature": 0, "num_predict": 10}


@pytest.fixture
def client(door: Door) -> ollama.Client:
    return ollama.Client(host=door.url)


def test_what_there_is(client: ollama.Client, door: Door) -> None:
    listed = client.list().models
    assert [model.model for model in listed] == [MODEL]
    assert client.ps().models == []  # it runs elsewhere
    shown = client.show(MODEL)
    assert shown.details is not None
    assert shown.details.parameter_size == "2.0M"
    assert httpx.get(f"{door.url}/api/version").json()["version"]


def test_a_chat(client: ollama.Client) -> None:
    messages = [{"role": "system", "content": "Python"}, {"role": "user", "content": PROMPT}]
    whole = client.chat(f"{MODEL}:latest", messages, options=GREEDY)
    parts = list(client.chat(MODEL, messages, options=GREEDY, stream=True))
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert (whole.done_reason, whole.eval_count) == ("length", 10)
    assert parts[-1].done
    assert len(parts) > 4


def test_generate_and_embed(client: ollama.Client) -> None:
    whole = client.generate(MODEL, PROMPT, options=GREEDY, raw=True)
    again = client.generate(MODEL, PROMPT, options=GREEDY)
    assert whole.response == again.response  # the model has no template
    stop = whole.response[5:9]
    cut = client.generate(MODEL, PROMPT, options={**GREEDY, "stop": [stop]})
    assert cut.response == whole.response[: whole.response.index(stop)]
    found = client.embed(MODEL, ["one", "two"])
    assert len(found.embeddings) == 2


def test_faults_are_a_sentence(client: ollama.Client, door: Door) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        client.generate("gpt-9", PROMPT)
    assert caught.value.status_code == 404
    assert "nobody in the swarm serves it" in caught.value.error
    with pytest.raises(ollama.ResponseError):
        client.chat(MODEL, [{"role": "user", "content": PROMPT}], options={"temperature": 9})
    answer = httpx.post(f"{door.url}/api/chat", content=b"{")
    assert (answer.status_code, answer.json()) == (400, {"error": "The request is not JSON"})
    answer = httpx.post(f"{door.url}/api/pull", json={"model": MODEL})
    assert answer.status_code == 404
