"""Mixtures and pipelines from the command line, with experts of one daemon."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.command_line import Daemon, running
from tests.models.model_worker import TINY, write_tiny

NAMES = ("tiny", "small")
ASKED = ("ab", "--max-tokens", "8")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """It serves two models of bytes."""
    place = tmp_path_factory.mktemp("c")
    flags = []
    for name, layers in zip(NAMES, (1, 2), strict=True):
        write_tiny(place / name, replace(TINY, name=name, layers=layers))
        flags += ["--serve", str(place / name)]
    with running(place / "home", *flags) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def mixture(daemon: Daemon) -> str:
    made = daemon("mixture", "create", "both", *(f"--expert={name}" for name in NAMES))
    assert made.code == 0, made.err
    assert daemon("serve", "both").code == 0
    return made.out.strip()


def test_a_mixture_is_shown(daemon: Daemon, mixture: str) -> None:
    shown = daemon.json("mixture", "show", "both")
    assert shown["kind"] == "mixture"
    assert shown["served"]
    assert shown["model"] == mixture == daemon.json("show", "both")["digest"]
    assert [expert["name"] for expert in shown["experts"]] == list(NAMES)
    text = daemon("mixture", "show", "both").out
    assert "token by token" in text
    assert "small" in text


def test_receipts_show_and_verify_the_parts(daemon: Daemon, mixture: str, tmp_path: Path) -> None:
    kept = tmp_path / "r.json"
    asked = daemon("run", "both", *ASKED, "--receipt", str(kept))
    assert asked.code == 0, asked.err
    assert "genuine" in daemon("receipts", "verify", str(kept)).out
    (said,) = daemon.json("receipts", "show", str(kept))["receipts"]
    assert said["engine"] == "mixture/token"
    assert sum(part["share"] for part in said["parts"]) == pytest.approx(1, abs=1e-5)
    assert "small" in daemon("receipts", "show", str(kept)).out
    changed = json.loads(kept.read_text())
    changed["receipts"][0]["parts"].reverse()
    kept.write_text(json.dumps(changed))
    assert daemon("receipts", "verify", str(kept)).code == 1


def test_a_pipeline_is_made_of_a_file(daemon: Daemon, tmp_path: Path) -> None:
    steps = [{"model": "tiny"}, {"model": "small", "template": "{step1}. {input}"}]
    (tmp_path / "p.json").write_text(json.dumps({"steps": steps}))
    made = daemon("pipeline", "create", "two", str(tmp_path / "p.json"))
    assert made.code == 0, made.err
    assert "{step1}. {input}" in daemon("pipeline", "show", "two").out
    assert daemon("serve", "two").code == 0
    (answer,) = daemon.json("run", "two", "ab", "--max-tokens", "8")["answers"]
    assert len(answer["receipts"][0]["parts"]) == 2
    assert daemon("stop", "two").code == 0
    assert not daemon.json("mixture", "show", "two")["served"]
    digest = made.out.strip()[:12]
    rows = [line.split()[:5] for line in daemon("list").out.splitlines()]
    assert ["two", "pipeline", "-", "-", digest] in rows
    assert daemon("rm", "two").code == 0
    assert "no card named 'two'" in daemon("pipeline", "show", "two").err


def test_what_is_served_is_not_removed(daemon: Daemon, mixture: str) -> None:
    for name, said in (("both", "both is served"), ("..", "no model named '..' is stored here")):
        outcome = daemon("rm", name)
        assert (outcome.code, said in outcome.err) == (1, True)
    assert daemon.home.is_dir()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("create", "one", "--expert", "tiny"), 2, "at least twice"),
        (("create", "x", "--expert", "tiny", "--expert", "nobody"), 1, "nobody in the swarm"),
        (("create", "x", "--expert", "tiny", "--expert", "tiny"), 1, "named twice"),
        (("create", "../x", "--expert", "tiny", "--expert", "small"), 1, "letters"),
        (("create", "both", "--expert", "tiny", "--expert", "small"), 1, "already"),
        (("create", "x", "--expert=tiny", "--expert=small", "--top-k", "3"), 1, "top 3"),
        (("show", "nothing"), 1, "no card named"),
    ],
)
def test_what_cannot_be_made_is_said(daemon: Daemon, mixture, arguments, code, said) -> None:
    outcome = daemon("mixture", *arguments)
    assert outcome.code == code
    assert said in outcome.err
