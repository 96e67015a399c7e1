"""Answers and their checks without a network: real backends, receipts signed by keys of tests; and
impostors, which are models whose weights are not those that they say."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional

from ledger.codec import pack
from ledger.keys import KeyPair
from ledger.types import ChainId, Hash
from models.backends import Backend
from models.catalog import open_model
from models.checking import LIKELY
from models.config import GptConfig
from models.gpt import load_gpt
from models.pipe import Done, Failed, Part, Submit
from models.tokenizer import load_tokenizer
from models.trace import row_of, trace_hash
from models.types import (
    Kind,
    Query,
    Receipt,
    ReceiptBody,
    Sampling,
    Tensor,
    input_hash,
    output_hash,
    request_hash,
    sign_receipt,
)
from models.verdict import Opinion, Subject
from models.worker import Options, load

CHAIN, MODEL = ChainId(b"chain of a test."), Hash(b"m" * 32)
ASKER = KeyPair.from_seed(b"a" * 32)
SERVER = KeyPair.from_seed(b"s" * 32)
CHECKERS = [KeyPair.from_seed(bytes([number]) * 32) for number in range(1, 5)]
GREEDY = Sampling(max_tokens=24, likely=LIKELY)
WEIGHTS = "model.safetensors"
LIMIT_MS = 600_000
SENTENCE = "The best language for a program is the one that its readers know."
STEP = 1e-5
"""Of the optimiser: a tenth of what is usual for a short training."""

Weights = dict[str, torch.Tensor]


@dataclass
class Party:
    """Somebody who serves a model: a backend, and the key that signs its receipts."""

    backend: Backend
    pair: KeyPair
    dtype: str = ""
    """What it says that it computes with; its backend's by default."""

    def serve(self, prompts: Sequence[str], sampling: Sampling = GREEDY) -> list[Subject]:
        """Answers to prompts, all at once."""
        queries = [(query_of(Kind.TEXT, prompt.encode(), sampling), prompt.encode())
                   for prompt in prompts]  # fmt: skip
        return [
            Subject(query, data, receipt, trace)
            for (query, data), (_, receipt, trace) in zip(queries, self.run(queries), strict=True)
        ]

    def check(self, subject: Subject) -> Opinion:
        """What it finds of an answer."""
        data = pack(subject.check())
        query = query_of(Kind.CHECK, data, Sampling(max_tokens=1))
        [(output, receipt, _)] = self.run([(query, data)])
        return Opinion(query, output, receipt)

    def checked(self, subject: Subject, *others: "Party") -> list[Opinion]:
        """What others find of an answer of its own, and what it finds itself where that counts."""
        return [each.check(subject) for each in (*others, *([] if subject.is_exact else [self]))]

    def run(self, queries: Sequence[tuple[Query, bytes]]) -> list[tuple[bytes, Receipt, bytes]]:
        """The answers to queries in one batch: output, receipt, trace."""
        parts: list[list[Part]] = [[] for _ in queries]
        ends: dict[int, Done] = {}
        for job, (query, data) in enumerate(queries):
            self.backend.submit(
                Submit(job, query.kind, data, (), query.sampling, query.prefix, LIMIT_MS), 0.0
            )
        while self.backend.busy:
            for reply in self.backend.step(0.0):
                assert not isinstance(reply, Failed), reply
                if isinstance(reply, Part):
                    parts[reply.job].append(reply)
                elif isinstance(reply, Done):
                    ends[reply.job] = reply
        return [
            self._signed(query, parts[job], ends[job]) for job, (query, _) in enumerate(queries)
        ]

    def _signed(self, query: Query, parts: list[Part], done: Done) -> tuple[bytes, Receipt, bytes]:
        output = b"".join(part.data for part in parts)
        trace = b"".join(row_of(part.tokens, part.likely) for part in parts)
        shape: tuple[Tensor, ...] = parts[-1].tensor if parts else ()
        body = ReceiptBody(
            CHAIN, self.pair.public, request_hash(query), MODEL, output_hash(output), shape,
            done.prompt_tokens, done.output_tokens, done.finish, 1, 2, 3, 0,
            f"test/{self.dtype or self.backend.dtype}", trace=trace_hash(trace),
        )  # fmt: skip
        return output, sign_receipt(body, self.pair), trace


def query_of(kind: Kind, data: bytes, sampling: Sampling) -> Query:
    return Query(
        CHAIN, ASKER.public, bytes(16), MODEL, kind, input_hash(data), len(data), (), sampling, b"",
        LIMIT_MS,
    )  # fmt: skip


def signed_again(subject: Subject, **changes: object) -> Subject:
    """The same answer, of which its server says something else."""
    trace = changes.pop("trace", subject.trace)
    assert isinstance(trace, bytes)
    body = replace(subject.receipt.body, trace=trace_hash(trace), **changes)  # type: ignore[arg-type]
    return replace(subject, receipt=sign_receipt(body, SERVER), trace=trace)


def opened(directory: Path, slots: int = 4) -> Backend:
    """The backend of a directory, in this process."""
    return load(Options(0, directory, None, slots, 1))[1]


# --- impostors


def impostor(
    source: Path, target: Path, change: Callable[[Weights], Mapping[str, torch.Tensor]]
) -> Path:
    """A copy of a model's directory with other weights, of the same shapes and dtypes."""
    shutil.copytree(source, target)
    with safe_open(source / WEIGHTS, "pt") as file:
        metadata = file.metadata()
    before = load_file(source / WEIGHTS)
    after = change({name: weight.float() for name, weight in before.items()})
    saved = {name: after[name].to(weight.dtype).contiguous() for name, weight in before.items()}
    save_file(saved, target / WEIGHTS, metadata)
    return target


def quantised(weights: Weights) -> Weights:
    """Each matrix rounded to 8 bits a number, with a scale for each row, and back."""

    def rounded(weight: torch.Tensor) -> torch.Tensor:
        scale = weight.abs().amax(dim=-1, keepdim=True).clamp(min=1e-12) / 127
        return (weight / scale).round() * scale

    return {name: rounded(one) if one.dim() == 2 else one for name, one in weights.items()}


def trained(source: Path) -> Callable[[Weights], Weights]:
    """A GPT's weights after three small steps on one sentence."""

    def change(weights: Weights) -> Weights:
        model = open_model(source)
        assert isinstance(model.config, GptConfig)
        gpt = load_gpt(model.config, source / WEIGHTS)
        text = load_tokenizer((source / "tokenizer.json").read_bytes()).encode(SENTENCE)
        tokens = torch.tensor([text])
        optimiser = torch.optim.AdamW(gpt.parameters(), lr=STEP)
        for _ in range(3):
            logits = gpt.logits(gpt(tokens[:, :-1]))
            functional.cross_entropy(logits[0], tokens[0, 1:]).backward()
            optimiser.step()
            optimiser.zero_grad()
        return {name: weight.detach() for name, weight in gpt.state_dict().items()}

    return change


def trained_further(source: Path) -> Callable[[Weights], Weights]:
    """The same of a directory of the transformers library."""

    def change(weights: Weights) -> Weights:
        import transformers

        network = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
        text = transformers.AutoTokenizer.from_pretrained(source)(SENTENCE, return_tensors="pt")
        optimiser = torch.optim.AdamW(network.parameters(), lr=STEP)
        for _ in range(3):
            network(**text, labels=text["input_ids"]).loss.backward()
            optimiser.step()
            optimiser.zero_grad()
        after = network.state_dict()
        return {name: after[name].detach() for name in weights}

    return change


def noisy(share: float) -> Callable[[Weights], Weights]:
    """Each matrix with noise of so much of its own spread."""

    def change(weights: Weights) -> Weights:
        torch.manual_seed(1)
        return {
            name: one + share * one.std() * torch.randn_like(one) if one.dim() == 2 else one
            for name, one in weights.items()
        }

    return change
