"""A GGUF file made into a directory: a tiny real one, written by the `gguf` library.

It needs the extra `hf`, and is skipped without it.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ledger.errors import Invalid
from models.catalog import open_model
from models.gguf import convert, main, validate_memory
from models.types import Kind
from tests.models.pretrained_models import ENDS, TEMPLATE, byte_letters
from tests.test_layers import ROOT

gguf = pytest.importorskip("gguf", reason="the extra hf is not installed")
pytest.importorskip("transformers", reason="the extra hf is not installed")

WIDTH, WIDE, HEADS, KEY_HEADS = 32, 64, 4, 2
TOKENS = [*byte_letters(), "ab", *ENDS]


def write_gguf(path: Path) -> Path:
    """A Llama of two layers, packed in eight bits a number."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(WIDE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([1] * (len(TOKENS) - 3) + [3] * 3)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(len(TOKENS) - 2)
    writer.add_eos_token_id(len(TOKENS) - 1)
    writer.add_chat_template(TEMPLATE)
    numbers = np.random.default_rng(3)
    shapes = {"token_embd": (len(TOKENS), WIDTH), "output_norm": (WIDTH,)}
    for layer in range(2):
        at = f"blk.{layer}"
        shapes |= {
            f"{at}.attn_norm": (WIDTH,), f"{at}.ffn_norm": (WIDTH,),
            f"{at}.attn_q": (WIDTH, WIDTH), f"{at}.attn_output": (WIDTH, WIDTH),
            f"{at}.attn_k": (WIDTH * KEY_HEADS // HEADS, WIDTH),
            f"{at}.attn_v": (WIDTH * KEY_HEADS // HEADS, WIDTH),
            f"{at}.ffn_gate": (WIDE, WIDTH), f"{at}.ffn_up": (WIDE, WIDTH),
            f"{at}.ffn_down": (WIDTH, WIDE),
        }  # fmt: skip
    for name, shape in shapes.items():
        values = numbers.normal(size=shape).astype(np.float32)
        kind = gguf.GGMLQuantizationType.Q8_0
        if len(shape) == 1:
            writer.add_tensor(f"{name}.weight", values)
        else:
            packed = gguf.quantize(values, kind)
            writer.add_tensor(f"{name}.weight", packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.Q8_0.gguf")


def test_the_same_file_gives_the_same_bytes(file: Path, tmp_path: Path) -> None:
    first, second = convert(file, tmp_path / "first"), convert(file, tmp_path / "second")
    assert first.digest == second.digest
    assert (first.kind, first.name) == (Kind.TEXT, "first")
    assert open_model(tmp_path / "first") == first
    names = {path.name for path in (tmp_path / "first").iterdir()}
    assert names >= {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"}
    assert not any(name.endswith((".bin", ".py")) for name in names)
    assert (tmp_path / "first" / "chat_template.jinja").read_text() == TEMPLATE
    assert str(tmp_path) not in "".join(
        path.read_text() for path in (tmp_path / "first").glob("*.json")
    )


def test_digits_are_cut_as_the_model_was_taught(file: Path, tmp_path: Path) -> None:
    convert(file, tmp_path / "made")
    tokenizer = json.loads((tmp_path / "made" / "tokenizer.json").read_text())
    steps = tokenizer["pre_tokenizer"]["pretokenizers"]
    assert [step["type"] for step in steps] == ["Digits", "ByteLevel"]


def test_what_is_no_gguf_file_is_refused(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(b"PK\3\4")
    with pytest.raises(Invalid, match=r"other\.gguf is not a GGUF file"):
        convert(other, tmp_path / "made")
    for size in (2000, file.stat().st_size - 1):
        other.write_bytes(file.read_bytes()[:size])
        assert main([str(other), str(tmp_path / "made")]) == 1
        assert capsys.readouterr().err.startswith("other.gguf is cut off or damaged: ")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(Invalid, match="full is not empty"):
        convert(file, tmp_path / "full")


def test_what_does_not_fit_into_memory_is_refused() -> None:
    validate_memory("big.gguf", 10**9, None)
    validate_memory("big.gguf", 10**9, 7 * 10**9)
    with pytest.raises(Invalid, match=r"big\.gguf needs 6022 MB of memory to be converted, 95 MB"):
        validate_memory("big.gguf", 10**9, 10**8)


def test_it_ends_with_its_input(file: Path, tmp_path: Path) -> None:
    """What asked for it may be killed, and a conversion writes to that one's home."""
    command = [sys.executable, "-m", "models.gguf", "--until-eof", str(file), str(tmp_path / "a")]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 1
    assert not (tmp_path / "a" / "model.safetensors").exists()
