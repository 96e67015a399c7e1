"""Transformers directories as the daemon reads them: without transformers, without torch."""

import json
import shutil
from pathlib import Path

import pytest

from ledger.errors import Invalid, Reason
from models.catalog import CACHE_BYTES, context_of, memory_need, open_model
from models.config import PretrainedConfig, read_config
from models.manifest import validate_manifest
from models.packages import package_model
from models.processor import has_bfloat16
from models.types import ANSWERS, Kind
from tests.models.pretrained_models import BERT, LLAMA, llama_weights, put, write_bert, write_llama


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "tiny-llama")


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return write_bert(tmp_path / "tiny-bert")


def refusal_of(directory: Path) -> str:
    with pytest.raises(Invalid) as refusal:
        open_model(directory)
    assert refusal.value.reason is Reason.BAD_MODEL
    return refusal.value.detail


def test_opens_a_model_that_writes(llama: Path) -> None:
    model = open_model(llama)
    assert (model.name, model.kind) == ("tiny-llama", Kind.TEXT)
    assert model.config == PretrainedConfig(Kind.TEXT, "LlamaForCausalLM", 259, 128, 2, 2, 8)
    assert model.parameters == sum(weight.numel() for weight in llama_weights().values())
    half = has_bfloat16()
    assert model.dtype == ("bfloat16" if half else "float32")
    assert model.weight_bytes == (2 if half else 4) * model.parameters


def test_opens_an_encoder_whose_buffers_are_no_parameters(bert: Path) -> None:
    model = open_model(bert)
    assert (model.name, model.kind, model.dtype) == ("tiny-bert", Kind.EMBEDDING, "float32")
    assert ANSWERS[model.kind] == (Kind.EMBEDDING,)
    assert model.parameters == 64 * 32 + 40 * 32 + 2 * 32 + 2 * 32 + (
        4 * (32 * 32 + 32) + (48 * 32 + 48) + (32 * 48 + 32) + 4 * 32
    )


def test_a_tokenizer_may_be_as_large_as_the_largest_are(llama: Path) -> None:
    """Of 262,144 tokens, in 33 MB of JSON; what nobody has is refused before it is read."""
    tokenizer = llama / "tokenizer.json"
    tokenizer.write_bytes(tokenizer.read_bytes() + b" " * 33_000_000)
    model = open_model(llama)
    validate_manifest(model.described.manifest)
    with tokenizer.open("ab") as file:
        file.truncate(2**26 + 1)
    assert refusal_of(llama) == "tokenizer.json is over 67108864 bytes"


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("chat_template.jinja", True),
        ("tokenizer_config.json", True),
        ("generation_config.json", True),
        ("1_Pooling/config.json", True),
        ("README.md", False),
        ("pytorch_model.bin.index.json", False),
    ],
)
def test_the_digest_is_of_what_decides_the_answers(llama: Path, name: str, counts: bool) -> None:
    before = open_model(llama).digest
    (llama / name).parent.mkdir(exist_ok=True)
    (llama / name).write_text("{}")
    assert (open_model(llama).digest != before) is counts


def test_weights_may_be_in_shards(llama: Path) -> None:
    whole = open_model(llama)
    weights = "model.safetensors"
    shutil.move(llama / weights, llama / "model-00001-of-00001.safetensors")
    assert weights in refusal_of(llama)
    put(llama / f"{weights}.index.json",
        {"weight_map": {"model.norm.weight": "model-00001-of-00001.safetensors"}})  # fmt: skip
    sharded = open_model(llama)
    assert (sharded.parameters, sharded.dtype) == (whole.parameters, whole.dtype)
    assert sharded.digest != whole.digest


@pytest.mark.parametrize(
    "place", ["../model.safetensors", "/etc/passwd", "model.bin", ".safetensors", 7]
)
def test_shards_lie_in_the_directory(llama: Path, place: object) -> None:
    (llama / "model.safetensors").unlink()
    put(llama / "model.safetensors.index.json", {"weight_map": {"a": place}})
    assert "does not name 1..256 safetensors files" in refusal_of(llama)


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        (
            {"auto_map": {"AutoModel": "modeling.Mine"}},
            "config.json asks for its author's code to be run (auto_map)",
        ),
        ({"quantization_config": {}}, "its weights are quantized in a way that is not read here"),
        ({"layer_types": ["mamba"]}, "it has layers that are not attention"),
        ({"layer_types": 7}, "it has layers that are not attention"),
        ({"architectures": ["WhisperForConditionalGeneration"]}, "neither writes text nor embeds"),
        ({"architectures": []}, "neither writes text nor embeds"),
        ({"architectures": None}, "neither writes text nor embeds"),
        ({"max_position_embeddings": None}, "max_position_embeddings is not an integer within"),
        ({"num_hidden_layers": 2**20}, "num_hidden_layers is not an integer within"),
        ({"num_attention_heads": True}, "num_attention_heads is not an integer within"),
        ({"vocab_size": "many"}, "vocab_size is not an integer within"),
        ({"sliding_window": "all"}, "sliding_window is not an integer within"),
    ],
)
def test_what_cannot_be_served_is_refused_unloaded(
    llama: Path, change: dict[str, object], detail: str
) -> None:
    put(llama / "config.json", LLAMA | change)
    assert detail in refusal_of(llama)


def test_weights_beside_the_models_are_refused(llama: Path) -> None:
    put(llama / "adapter_config.json", {"base_model_name_or_path": "elsewhere"})
    assert refusal_of(llama).startswith("adapter_config.json")


def config_of(**fields: object) -> PretrainedConfig:
    config = read_config(json.dumps(fields).encode())
    assert isinstance(config, PretrainedConfig)
    return config


def test_families_name_things_differently() -> None:
    gpt2 = config_of(
        model_type="gpt2", architectures=["GPT2LMHeadModel"], vocab_size=50257, n_positions=1024,
        n_layer=12, n_head=12, n_embd=768,
    )  # fmt: skip
    assert gpt2 == PretrainedConfig(Kind.TEXT, "GPT2LMHeadModel", 50257, 1024, 12, 12, 64)
    roberta = config_of(**BERT | {"model_type": "roberta", "architectures": ["RobertaForMaskedLM"],
                                  "max_position_embeddings": 514})  # fmt: skip
    assert (roberta.kind, roberta.context) == (Kind.EMBEDDING, 512)


def test_a_window_of_attention_bounds_the_context() -> None:
    """Within it all layers see the same; beyond it they would need another mask."""
    assert config_of(**LLAMA | {"sliding_window": 64}).context == 64
    unused = LLAMA | {"sliding_window": 64, "use_sliding_window": False}
    assert config_of(**unused).context == 128


def test_the_cache_of_all_slots_fits(llama: Path) -> None:
    put(llama / "config.json", LLAMA | {"max_position_embeddings": 2**20, "head_dim": 4096})
    model = open_model(llama)
    assert isinstance(model.config, PretrainedConfig)
    few, many = (context_of(model.shape, model.config, slots) for slots in (4, 64))
    assert few == 8192
    assert many < 8192
    number = 2 if model.dtype == "bfloat16" else 4
    assert 64 * many * model.config.token_bytes(number) <= CACHE_BYTES
    assert memory_need(model.shape, 64) < CACHE_BYTES + 2**30


def test_bfloat16_is_used_where_the_processor_has_it(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    assert not has_bfloat16(info)
    info.write_text("model name\t: one\nflags\t\t: fpu avx512f\n")
    assert not has_bfloat16(info)
    info.write_text("model name\t: one\nflags\t\t: fpu avx512_bf16\n")
    assert has_bfloat16(info)


def test_a_model_in_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given two packages, as pip leaves them, with a directory and with a GGUF file."""
    monkeypatch.syspath_prepend(str(tmp_path))
    write_bert(tmp_path / "carrier" / "model")
    install(tmp_path, "carrier", "carrier/model/config.json", "carrier/__init__.py")
    assert package_model("carrier") == tmp_path / "carrier" / "model"
    (tmp_path / "weights.gguf").write_bytes(b"GGUF")
    install(tmp_path, "packed", "weights.gguf")
    assert package_model("packed") == tmp_path / "weights.gguf"
    install(tmp_path, "both", "weights.gguf", "carrier/model/config.json")
    for name, detail in [("both", "several models"), ("absent", "no package"), ("", "no package"),
                         ("pytest", "no model that is served here")]:  # fmt: skip
        with pytest.raises(Invalid, match=detail):
            package_model(name)


def install(root: Path, name: str, *files: str) -> None:
    """What pip writes down of a package."""
    info = root / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
