"""Keys of applications: what they are needed for, what they limit, and that a revoke is at once."""

import json
import re
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from p2p.apikeys import load_keys
from tests.cli.command_line import Daemon, Yuma, run_within, running

ASKED = {"model": "none", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Reached from everywhere: it has a key from the start."""
    home = tmp_path_factory.mktemp("k") / "home"
    for arguments in (("init",), ("gateway", "key", "create", "first")):
        assert run_within(home, *arguments).code == 0
    with running(home, "--gateway", "0.0.0.0:0") as found:
        yield replace(found, run=run_within)


def url(daemon: Daemon, path: str) -> str:
    found = str(daemon.json("id")["gateway"])
    return found.replace("0.0.0.0", "127.0.0.1") + path


def make(daemon: Daemon, name: str, *limits: str) -> dict[str, str]:
    """The header of a new key."""
    key = daemon.json("gateway", "key", "create", name, *limits)["key"]
    return {"Authorization": f"Bearer {key}"}


def test_a_key_is_shown_once_and_kept_as_a_hash(yuma: Yuma, home: Path) -> None:
    assert run_within(home, "init").code == 0
    made = run_within(home, "gateway", "key", "create", "shop", "--budget", "2.5")
    assert re.fullmatch(r"yuma-[\w-]{43}", made.out.strip())
    file = home / "gateway.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert made.out.strip() not in file.read_text()
    assert made.out.strip().removeprefix("yuma-") not in file.read_text()
    keys = load_keys(file)
    assert keys.find(made.out.strip()) is keys.named("shop")
    assert keys.find(made.out.strip()[:-1]) is None
    listed = run_within(home, "gateway", "key", "list").out
    assert "2.5 tokens" in listed
    again = run_within(home, "gateway", "key", "create", "shop")
    assert (again.code, again.err) == (
        1, "there is a key named shop\nhint: revoke it first, or choose another\n",
    )  # fmt: skip
    assert run_within(home, "gateway", "key", "revoke", "shop").code == 0
    assert run_within(home, "gateway", "key", "revoke", "shop").code == 1
    assert json.loads(run_within(home, "gateway", "key", "list", "--json").out) == {"keys": []}


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "ä"])
def test_names_are_plain(home: Path, name: str) -> None:
    run_within(home, "init")
    made = run_within(home, "gateway", "key", "create", name)
    assert made.code == 2
    assert "a key's name is 1 to 64 of" in made.err


DAMAGED = (
    "",
    "[]",
    '{"format": "other", "keys": []}',
    '{"format": "yuma-gateway-1", "keys": [{"name": "x"}]}',
)


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_file_is_said_in_a_sentence(home: Path, text: str) -> None:
    run_within(home, "init")
    (home / "gateway.json").write_text(text)
    done = run_within(home, "gateway", "key", "list")
    assert done.code == 2
    assert "gateway.json is damaged" in done.err


def test_who_listens_for_all_needs_a_key_first(yuma: Yuma, home: Path) -> None:
    done = yuma("daemon", "--listen", "/ip4/127.0.0.1/tcp/0", "--gateway", "0.0.0.0:0")
    assert done.code == 2
    assert "others can reach the gateway at 0.0.0.0:0, and it has no key yet" in done.err
    assert "yuma gateway key create NAME" in done.err


def test_without_a_key_only_the_page_is_open(daemon: Daemon) -> None:
    for path in ("/v1/models", "/api/tags", "/v0/status", "/v0/id"):
        for headers in ({}, {"Authorization": "Bearer yuma-wrong"}, {"Authorization": "Basic x"}):
            answer = httpx.get(url(daemon, path), headers=headers)
            assert answer.status_code == 401, path
    error = httpx.get(url(daemon, "/v1/models")).json()["error"]
    assert error["code"] == "invalid_api_key"
    assert httpx.get(url(daemon, "/healthz")).status_code != 401


def test_a_revoked_key_is_at_once_out(daemon: Daemon) -> None:
    header = make(daemon, "short-lived")
    assert httpx.get(url(daemon, "/v1/models"), headers=header).status_code == 200
    assert daemon("gateway", "key", "revoke", "short-lived").code == 0
    assert httpx.get(url(daemon, "/v1/models"), headers=header).status_code == 401


def test_an_address_is_a_host_and_a_strange_name_is_none(daemon: Daemon) -> None:
    header = make(daemon, "guest")
    for host, origin, status in (
        ("192.0.2.7:4080", "http://192.0.2.7:4080", 200),
        ("192.0.2.7:4080", "http://192.0.2.8:4080", 403),
        ("attacker.example", "http://attacker.example", 403),
    ):
        headers = {**header, "Host": host, "Origin": origin}
        assert httpx.get(url(daemon, "/v1/models"), headers=headers).status_code == status


def test_requests_a_minute(daemon: Daemon) -> None:
    header = make(daemon, "slow", "--requests-per-minute", "2")
    path = url(daemon, "/v1/chat/completions")
    answers = [httpx.post(path, json=ASKED, headers=header) for _ in range(3)]
    assert [one.status_code for one in answers] == [404, 404, 429]
    assert answers[2].json()["error"]["code"] == "rate_limit_exceeded"
    assert 0 < int(answers[2].headers["retry-after"]) <= 30
    assert answers[2].headers["x-ratelimit-limit-requests"] == "2"
    assert answers[2].headers["x-ratelimit-remaining-requests"] == "0"
    used = {row["name"]: row for row in daemon.json("gateway", "key", "list")["keys"]}
    assert used["slow"]["requests"] == 2
