"""Receipt files, read and checked offline: receipts show, verify."""

import base64
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from p2p.cli.command import Group, json_option
from p2p.cli.failure import Failure
from p2p.cli.show import aligned, print_json
from p2p.home import write_whole
from p2p.receipts import FORMAT, document_of

if TYPE_CHECKING:
    from models.parts import Portion
    from models.types import Query, Receipt, Tensor
    from models.verdict import Opinion, Verdict

MAX_FILE_BYTES = 2**30
"""Over a hundred answers of the largest size."""
MAX_RECEIPT_BYTES = 4096
"""Ten times what a receipt of the longest names takes."""
ITEM_BYTES = {"float64": 8, "int64": 8, "float32": 4, "int32": 4, "float16": 2, "bfloat16": 2,
              "int16": 2, "int8": 1, "uint8": 1, "bool": 1}  # fmt: skip
"""Of the dtypes that a tensor on the wire may have; others cannot be checked."""


@dataclass(frozen=True)
class Evidence:
    """A receipt with all that it takes to check it."""

    query: "Query"
    input: bytes
    output: bytes
    receipt: "Receipt"
    parts: "tuple[Portion, ...]" = ()
    trace: bytes = b""
    """What was told of the tokens, where it was asked for."""
    opinions: "tuple[Opinion, ...]" = ()
    verdict: "Verdict | None" = None


def save(path: Path, receipts: Sequence[Any]) -> None:
    """Keep receipts as they came from the API. Raises OSError."""
    write_whole(path, json.dumps(document_of(receipts)).encode())


def load(path: Path) -> list[Evidence]:
    """The receipts in a file. Raises Failure."""
    if path.stat().st_size > MAX_FILE_BYTES:
        raise Failure(f"{path} is larger than any file of receipts")
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise _damaged(path, "it is not JSON") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise _damaged(path, f"it does not say that its format is {FORMAT}")
    receipts = found.get("receipts")
    if not isinstance(receipts, list) or not receipts:
        raise _damaged(path, "no receipt is in it")
    return [_evidence(path, index, item) for index, item in enumerate(receipts)]


def _damaged(path: Path, why: str) -> Failure:
    return Failure(
        f"{path} is not a usable file of receipts: {why}", "yuma run --receipt makes one"
    )


def _evidence(path: Path, index: int, item: Any) -> Evidence:
    from ledger.codec import unpack
    from ledger.errors import Invalid
    from models.parts import MAX_PARTS_BYTES, Portion
    from models.types import MAX_PREFIX_BYTES, Query, Receipt
    from models.verdict import MAX_OPINION_BYTES, Opinion, Verdict

    try:
        return Evidence(
            unpack(Query, bytes.fromhex(item["query"]), MAX_PREFIX_BYTES + MAX_RECEIPT_BYTES),
            base64.b64decode(item["input"], validate=True),
            base64.b64decode(item["output"], validate=True),
            unpack(Receipt, bytes.fromhex(item["receipt"]), MAX_RECEIPT_BYTES),
            tuple(
                unpack(Portion, bytes.fromhex(part), MAX_PARTS_BYTES)
                for part in item.get("parts", ())
            ),
            base64.b64decode(item.get("trace", ""), validate=True),
            tuple(
                unpack(Opinion, base64.b64decode(one, validate=True), MAX_OPINION_BYTES)
                for one in item.get("opinions", ())
            ),
            unpack(Verdict, bytes.fromhex(item["verdict"]), MAX_RECEIPT_BYTES)
            if "verdict" in item
            else None,
        )
    except KeyError as error:
        raise _damaged(path, f"receipt {index + 1} lacks {error}") from None
    except (Invalid, TypeError, ValueError) as error:
        raise _damaged(path, f"receipt {index + 1} cannot be read: {error}") from None


def fault_of(evidence: Evidence) -> str:
    """What is wrong with a receipt; empty where it is genuine and fits its question and answer."""
    from ledger.errors import Invalid
    from models.parts import verify_parts
    from models.trace import trace_hash
    from models.types import input_hash, verify_receipt
    from models.verdict import Subject, verify_verdict

    query, body = evidence.query, evidence.receipt.body
    try:
        verify_receipt(evidence.receipt, query, evidence.output)
        verify_parts(evidence.parts, query, evidence.input, body.parts)
        if evidence.trace and trace_hash(evidence.trace) != body.trace:
            return "the likelihoods are not those that the receipt names"
        if evidence.verdict is not None:
            subject = Subject(query, evidence.input, evidence.receipt, evidence.trace)
            verify_verdict(evidence.verdict, subject, evidence.opinions)
    except Invalid as error:
        return str(error)
    if input_hash(evidence.input) != query.input_hash:
        return "the input is not the one that was asked"
    if len(evidence.input) != query.input_size:
        return "the input has another size than the query says"
    if not _fits(query.tensor, evidence.input) or not _fits(body.output_tensor, evidence.output):
        return "a tensor has another size than its shape says"
    return ""


def _fits(tensors: "tuple[Tensor, ...]", data: bytes) -> bool:
    """Whether data can be the tensor that is declared, if one is."""
    for tensor in tensors:
        size = ITEM_BYTES.get(tensor.dtype, 0)
        for count in tensor.shape:
            size *= count
        if size != len(data) or min(tensor.shape, default=0) < 0:
            return False
    return True


@click.group(cls=Group)
def receipts() -> None:
    """Signed receipts of answers; these need no daemon."""


FILE = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))


@receipts.command()
@FILE
@json_option
def show(file: Path, as_json: bool) -> None:
    """Show what the receipts in FILE say."""
    said = [_said(evidence) for evidence in load(file)]
    if as_json:
        return print_json({"receipts": said})
    click.echo("\n\n".join(_block(one) for one in said))


def _block(said: Mapping[str, Any]) -> str:
    """What one receipt says, and, under it, what others had in its answer."""
    rows = [(name, str(value)) for name, value in said.items() if name != "parts"]
    parts = [
        (f"  {part['role']}", f"{100 * part['share']:.1f} %", f"{part['tokens']} tokens",
         part["server"] or "lost", part["model"][:12])
        for part in said.get("parts", ())
    ]  # fmt: skip
    return "\n".join([aligned(rows), *(["parts", aligned(parts)] if parts else [])])


@receipts.command()
@FILE
@json_option
def verify(file: Path, as_json: bool) -> None:
    """Check the receipts in FILE: signature, question and answer."""
    checked = [(evidence, fault_of(evidence)) for evidence in load(file)]
    if as_json:
        print_json({"receipts": [
            {**_said(one), "valid": not fault, "fault": fault} for one, fault in checked
        ]})  # fmt: skip
    else:
        click.echo(aligned([_verdict_row(one, fault) for one, fault in checked]))
    bad = sum(1 for _, fault in checked if fault)
    if bad:
        raise Failure(f"{bad} of {len(checked)} receipts do not hold")


def _verdict_row(evidence: Evidence, fault: str) -> tuple[str, ...]:
    from ledger.keys import peer_id_of

    body = evidence.receipt.body
    tokens = f"{body.prompt_tokens} + {body.output_tokens} tokens"
    found = f"bad: {fault}" if fault else "genuine"
    verdict = evidence.verdict
    if verdict is not None and not fault:
        agreed = f"{verdict.agreed} of {len(verdict.body.differences)} checkers agree"
        found = f"{found}; {verdict.body.outcome}: {agreed}"
        if any(one.checker == verdict.body.asker for one in verdict.body.differences):
            found = f"{found}, by the word of who asked"  # which counts alone, and nobody else's
    return peer_id_of(body.server), body.model.hex()[:12], tokens, found


def _said(evidence: Evidence) -> dict[str, Any]:
    """What a receipt and its query say, in the order in which people ask."""
    from ledger.keys import peer_id_of

    query, body = evidence.query, evidence.receipt.body
    sampling = query.sampling
    return {
        "server": peer_id_of(body.server),
        "asker": peer_id_of(query.asker),
        "chain": body.chain.hex(),
        "model": body.model.hex(),
        "kind": str(query.kind),
        "engine": ascii(body.engine)[1:-1],
        "input_bytes": len(evidence.input),
        "output_bytes": len(evidence.output),
        "prompt_tokens": body.prompt_tokens,
        "output_tokens": body.output_tokens,
        "cost": body.cost,
        "resumed_after": len(query.prefix) // 4,
        "temperature": sampling.temperature / 1000,
        "top_k": sampling.top_k,
        "seed": sampling.seed,
        "finish": str(body.finish),
        "first_ms": body.first_us / 1000,
        "total_ms": body.total_us / 1000,
        "time": _time_text(body.time_ms),
        "height": body.height,
        **({"parts": [_part(part) for part in evidence.parts]} if evidence.parts else {}),
        **(_verdict(evidence.verdict) if evidence.verdict is not None else {}),
    }


def _verdict(verdict: "Verdict") -> dict[str, Any]:
    """What checkers found, as the asker has signed it."""
    from ledger.keys import peer_id_of
    from models.types import SURPRISE_UNIT

    body = verdict.body
    checks = [
        f"{peer_id_of(one.checker)} {'agrees' if one.agrees else 'does not agree'}, "
        f"apart by {one.worst / SURPRISE_UNIT:.1e} at most"
        for one in body.differences
    ]
    return {"verdict": str(body.outcome), "checkers": "; ".join(checks)}


def _part(part: "Portion") -> dict[str, Any]:
    """What one other server had in an answer; no server stands by a part that broke off."""
    from ledger.keys import peer_id_of
    from models.parts import UNIT

    bodies = [receipt.body for receipt in part.receipt]
    return {
        "role": ascii(part.role)[1:-1],
        "model": part.query.model.hex(),
        "kind": str(part.query.kind),
        "share": part.share / UNIT,
        "server": peer_id_of(bodies[0].server) if bodies else None,
        "tokens": bodies[0].output_tokens if bodies else len(part.output) // 8,
    }


def _time_text(milliseconds: int) -> str:
    """A moment in UTC; what no calendar holds as the bare number."""
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(milliseconds / 1000))
    except (ValueError, OverflowError, OSError):
        return str(milliseconds)


COMMANDS = (receipts,)
