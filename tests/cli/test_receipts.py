import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.codec import pack
from ledger.keys import KeyPair
from ledger.types import ChainId, Hash
from models.types import (
    Finish,
    Kind,
    Query,
    ReceiptBody,
    Sampling,
    Tensor,
    input_hash,
    output_hash,
    request_hash,
    sign_receipt,
)
from p2p.cli import receipts
from p2p.cli.failure import Failure
from tests.cli.command_line import Yuma

SERVER, ASKER = KeyPair.from_seed(b"s" * 32), KeyPair.from_seed(b"a" * 32)
CHAIN, MODEL = ChainId(b"c" * 16), Hash(b"m" * 32)
PROMPT, ANSWER = b"The for statement", b" is used to iterate"


def query_of(data: bytes, tensor: tuple[Tensor, ...] = ()) -> Query:
    kind = Kind.TENSOR if tensor else Kind.TEXT
    hash_, nonce = input_hash(data), b"n" * 16
    return Query(
        CHAIN, ASKER.public, nonce, MODEL, kind, hash_, len(data), tensor, Sampling(), b"", 1000
    )


def body_of(query: Query, output: bytes, tensor: tuple[Tensor, ...] = ()) -> ReceiptBody:
    return ReceiptBody(
        chain=query.chain,
        server=SERVER.public,
        request_hash=request_hash(query),
        model=query.model,
        output_hash=output_hash(output),
        output_tensor=tensor,
        prompt_tokens=4,
        output_tokens=5,
        finish=Finish.LENGTH,
        first_us=25_000,
        total_us=600_000,
        time_ms=1_790_000_000_000,
        height=0,
        engine="gpt",
    )


def item_of(query: Query, data: bytes, output: bytes, body: ReceiptBody) -> dict[str, str]:
    return {
        "query": pack(query).hex(),
        "input": base64.b64encode(data).decode(),
        "output": base64.b64encode(output).decode(),
        "receipt": pack(sign_receipt(body, SERVER)).hex(),
    }


QUERY = query_of(PROMPT)
GENUINE = item_of(QUERY, PROMPT, ANSWER, body_of(QUERY, ANSWER))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "receipts.json"


def test_verify_a_genuine_receipt(yuma: Yuma, file: Path) -> None:
    receipts.save(file, [GENUINE, GENUINE])
    outcome = yuma("receipts", "verify", str(file))
    line = f"{SERVER.peer_id}  6d6d6d6d6d6d  4 + 5 tokens  genuine\n"
    assert (outcome.code, outcome.out, outcome.err) == (0, line + line, "")
    said = json.loads(yuma("receipts", "verify", str(file), "--json").out)["receipts"][0]
    assert (said["valid"], said["fault"], said["server"]) == (True, "", SERVER.peer_id)


def test_show_a_receipt(yuma: Yuma, file: Path) -> None:
    receipts.save(file, [GENUINE])
    said = json.loads(yuma("receipts", "show", str(file), "--json").out)["receipts"]
    assert said == [
        {
            "server": SERVER.peer_id,
            "asker": ASKER.peer_id,
            "chain": CHAIN.hex(),
            "model": MODEL.hex(),
            "kind": "text-generation",
            "engine": "gpt",
            "input_bytes": len(PROMPT),
            "output_bytes": len(ANSWER),
            "prompt_tokens": 4,
            "output_tokens": 5,
            "cost": 0,
            "resumed_after": 0,
            "temperature": 0.0,
            "top_k": 0,
            "seed": 0,
            "finish": "length",
            "first_ms": 25.0,
            "total_ms": 600.0,
            "time": "2026-09-21T14:13:20Z",
            "height": 0,
        }
    ]
    lines = yuma("receipts", "show", str(file)).out.splitlines()
    assert lines[0].split() == ["server", SERVER.peer_id]
    assert len(lines) == len(said[0])


@pytest.mark.parametrize(
    ("item", "fault"),
    [
        (GENUINE | {"output": base64.b64encode(b"else").decode()}, "does not match its output"),
        (GENUINE | {"input": base64.b64encode(b"else").decode()}, "the input is not the one"),
        (GENUINE | {"query": pack(replace(QUERY, nonce=bytes(16))).hex()}, "match its request"),
        (GENUINE | {"receipt": GENUINE["receipt"][:-2] + "00"}, "signature does not match"),
        (
            item_of(
                replace(QUERY, input_size=3),
                PROMPT,
                ANSWER,
                body_of(replace(QUERY, input_size=3), ANSWER),
            ),
            "another size than the query says",
        ),
        (
            item_of(QUERY, PROMPT, ANSWER, body_of(QUERY, ANSWER, (Tensor("float32", (2, 3)),))),
            "another size than its shape says",
        ),
    ],
)
def test_verify_a_tampered_receipt(
    yuma: Yuma, file: Path, item: dict[str, str], fault: str
) -> None:
    receipts.save(file, [GENUINE, item])
    outcome = yuma("receipts", "verify", str(file))
    assert outcome.code == 1
    good, bad = outcome.out.splitlines()
    assert good.endswith("genuine")
    assert "  bad: " in bad
    assert fault in bad
    assert outcome.err == "1 of 2 receipts do not hold\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ('{"format": "other"}', "it does not say that its format is yuma-receipts-1"),
        ("[]", "it does not say that its format is yuma-receipts-1"),
        ('{"format": "yuma-receipts-1"}', "no receipt is in it"),
        ('{"format": "yuma-receipts-1", "receipts": []}', "no receipt is in it"),
        ('{"format": "yuma-receipts-1", "receipts": [3]}', "receipt 1 cannot be read"),
        ('{"format": "yuma-receipts-1", "receipts": [{}]}', "receipt 1 lacks 'query'"),
    ],
)
def test_a_damaged_file_is_one_sentence(yuma: Yuma, file: Path, text: str, why: str) -> None:
    file.write_text(text)
    for command in ("verify", "show"):
        outcome = yuma("receipts", command, str(file))
        assert (outcome.code, outcome.out) == (1, "")
        assert outcome.err.startswith(f"{file} is not a usable file of receipts: {why}")
        assert len(outcome.err.splitlines()) == 2


@pytest.mark.parametrize("key", ["query", "input", "output", "receipt"])
@pytest.mark.parametrize("value", [None, 3, "no", "c0", "é", "00" * 300_000])
def test_a_damaged_receipt_is_one_sentence(tmp_path: Path, key: str, value: Any) -> None:
    file = tmp_path / "r"
    receipts.save(file, [GENUINE | {key: value}])
    try:
        (evidence,) = receipts.load(file)
    except Failure as failure:
        assert "receipt 1 cannot be read" in failure.message
    else:  # some of these are base64 of something else
        assert receipts.fault_of(evidence)


@given(st.sampled_from(["query", "input", "output", "receipt"]), st.data())
def test_no_other_bit_verifies(
    tmp_path_factory: pytest.TempPathFactory, key: str, data: st.DataObject
) -> None:
    hexadecimal = key in ("query", "receipt")
    text = GENUINE[key]
    raw = bytearray(bytes.fromhex(text) if hexadecimal else base64.b64decode(text))
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    changed = raw.hex() if hexadecimal else base64.b64encode(raw).decode()
    file = tmp_path_factory.mktemp("r") / "r"
    receipts.save(file, [GENUINE | {key: changed}])
    try:
        (evidence,) = receipts.load(file)
    except Failure:
        return
    assert receipts.fault_of(evidence)
