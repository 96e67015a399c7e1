"""What a model directory's config.json says, read and checked; no torch here.

Four sorts of directory: our GPT, an exported program, and an engine elsewhere, whose `kind` says
which; and a directory of the transformers library, which has a `model_type`.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ledger.errors import Invalid, Reason
from models.files import refuse_code
from models.types import Kind

MAX_NAME_BYTES = 128
INPUT_DTYPES = ("float32", "float64", "float16", "int32", "int64", "uint8")
"""Names that numpy and torch share; more are added when a model needs them."""
MAX_DIMENSIONS = 8
"""As many as a Tensor record holds."""
DIGEST_HEAD = 8
"""Digits of a digest, in hexadecimal, that are enough to name a model."""
READS_AS_DIGEST = re.compile(rf"[0-9a-fA-F]{{{DIGEST_HEAD},64}}", re.ASCII)

WRITERS = ("ForCausalLM", "LMHeadModel")
ENCODERS = ("Model", "ForMaskedLM")
"""How the names of the classes end that write text, and of those that embed it."""
UPSTREAM = "upstream"
URL = re.compile(r"https?://[A-Za-z0-9.\[\]:-]{1,255}(/[A-Za-z0-9._/-]{0,255})?", re.ASCII)
ATTENTION = ("full_attention", "sliding_attention")
POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx")
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads")
WIDTH = ("hidden_size", "n_embd", "d_model", "dim")
"""What the families call the same thing."""
OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""They count positions from two."""


@dataclass(frozen=True)
class GptConfig:
    """The shape of a GPT."""

    name: str
    vocabulary: int
    """Token ids are below this."""
    context: int
    """The most tokens of prompt and answer together."""
    layers: int
    heads: int
    width: int
    """Of the residual stream; a multiple of heads, and each head's share is even (rotary pairs)."""

    @property
    def parameters(self) -> int:
        """How many numbers its weights are: the embedding, and twelve squares a layer."""
        return self.vocabulary * self.width + self.layers * 12 * self.width**2


@dataclass(frozen=True)
class TensorConfig:
    """The input that an exported program takes."""

    name: str
    parameters: int
    dtype: str
    shape: tuple[int | None, ...]
    """None where any size goes; the first dimension is the batch."""


@dataclass(frozen=True)
class PretrainedConfig:
    """What has to be known of a transformers directory before anything of it is loaded."""

    kind: Kind
    """TEXT or EMBEDDING."""
    architecture: str
    vocabulary: int
    context: int
    """The most tokens that its positions, or the window of its attention, allow."""
    layers: int
    key_heads: int
    head: int
    """Numbers of one key or value."""

    def token_bytes(self, number: int) -> int:
        """What the cache holds of one token, in numbers of `number` bytes."""
        return 2 * number * self.layers * self.key_heads * self.head


@dataclass(frozen=True)
class UpstreamConfig:
    """An OpenAI-compatible engine of the operator's."""

    name: str
    url: str
    """Up to and with the version, such as http://127.0.0.1:8000/v1."""
    model: str
    """What the engine calls it."""
    context: int


Config = GptConfig | TensorConfig | PretrainedConfig | UpstreamConfig


def read_config(data: bytes) -> Config:
    """The config of a config.json. Raises Invalid BAD_MODEL."""
    fields = _fields(data)
    refuse_code("config.json", fields)
    if "model_type" in fields:
        return _pretrained_config(fields)
    kind = fields.pop("kind", None)
    if kind == Kind.TEXT:
        return _gpt_config(fields)
    if kind == Kind.TENSOR:
        return _tensor_config(fields)
    if kind == UPSTREAM:
        return _upstream_config(fields)
    known = f"{Kind.TEXT}, {Kind.TENSOR}, {UPSTREAM}"
    raise _refuse(f"its kind is {kind!r:.80}, not one of {known}")


def may_be_called(name: str, digest: str = "") -> bool:
    """Whether a name leaves other models' digests alone; `digest`: the model's own, if known.

    What reads as a digest, or as the head of one, names that model only.
    """
    return READS_AS_DIGEST.fullmatch(name) is None or digest.startswith(name)


def config_bytes(config: GptConfig | TensorConfig) -> bytes:
    """The config.json of a config."""
    if isinstance(config, GptConfig):
        fields = {"kind": Kind.TEXT, "architecture": "gpt", **vars(config)}
    else:
        shape = {"dtype": config.dtype, "shape": list(config.shape)}
        fields = {"kind": Kind.TENSOR, "name": config.name, "parameters": config.parameters}
        fields["input"] = shape
    return json.dumps(fields, indent=2).encode() + b"\n"


def _refuse(detail: str) -> Invalid:
    return Invalid(Reason.BAD_MODEL, f"config.json: {detail}")


def _fields(data: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise _refuse("it is not JSON") from None
    if not isinstance(fields, dict):
        raise _refuse("it is not a JSON object")
    return fields


def _gpt_config(fields: dict[str, Any]) -> GptConfig:
    if fields.get("architecture") != "gpt":
        raise _refuse(f"the architecture {fields.get('architecture')!r:.80} is not known")
    config = GptConfig(
        name=_name(fields),
        # The bounds keep a small file from asking for a huge cache.
        vocabulary=_integer(fields, "vocabulary", 257, 2**20),
        context=_integer(fields, "context", 2, 65_536),
        layers=_integer(fields, "layers", 1, 256),
        heads=_integer(fields, "heads", 1, 256),
        width=_integer(fields, "width", 2, 16_384),
    )
    if config.width % (2 * config.heads):
        raise _refuse("the width does not divide into heads of even size")
    return config


def _tensor_config(fields: dict[str, Any]) -> TensorConfig:
    shaped = fields.get("input")
    if not isinstance(shaped, dict) or shaped.get("dtype") not in INPUT_DTYPES:
        raise _refuse(f"input.dtype is not one of {', '.join(INPUT_DTYPES)}")
    return TensorConfig(
        name=_name(fields),
        parameters=_integer(fields, "parameters", 0, 2**48),
        dtype=shaped["dtype"],
        shape=_shape(shaped.get("shape")),
    )


def _upstream_config(fields: dict[str, Any]) -> UpstreamConfig:
    url, model = fields.get("url"), fields.get("model")
    if not isinstance(url, str) or not URL.fullmatch(url):
        raise _refuse("its url is not like http://127.0.0.1:8000/v1")
    if not isinstance(model, str) or not 1 <= len(model) <= MAX_NAME_BYTES:
        raise _refuse("its model is not the name of one")
    return UpstreamConfig(_name(fields), url, model, _integer(fields, "context", 2, 2**24))


def _pretrained_config(fields: dict[str, Any]) -> PretrainedConfig:
    if "quantization_config" in fields:
        raise _refuse("its weights are quantized in a way that is not read here")
    kinds = fields.get("layer_types") or ATTENTION
    if not isinstance(kinds, list | tuple) or not set(map(str, kinds)) <= set(ATTENTION):
        raise _refuse("it has layers that are not attention, which is all that is served")
    kind, architecture = _architecture(fields)
    heads = _either(fields, HEADS, 1, 1024)
    width = _either(fields, WIDTH, 2, 2**17)
    return PretrainedConfig(
        kind=kind,
        architecture=architecture,
        vocabulary=_integer(fields, "vocab_size", 2, 2**20),
        context=_positions(fields),
        layers=_either(fields, LAYERS, 1, 1024),
        key_heads=_either(fields, ("num_key_value_heads",), 1, 1024, heads),
        head=_either(fields, ("head_dim",), 1, 4096, width // heads),
    )


def _architecture(fields: dict[str, Any]) -> tuple[Kind, str]:
    """What kind of model it is, by the class that it was made with."""
    names = fields.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    if isinstance(name, str) and len(name) <= MAX_NAME_BYTES:
        if name.endswith(WRITERS):
            return Kind.TEXT, name
        if name.endswith(ENCODERS):
            return Kind.EMBEDDING, name
    raise _refuse(f"its architecture {name!r:.80} neither writes text nor embeds it")


def _positions(fields: dict[str, Any]) -> int:
    """The most tokens: within a window, all attention is alike."""
    positions = _either(fields, POSITIONS, 2, 2**30)
    if fields["model_type"] in OFFSET_POSITIONS:
        positions -= 2
    if fields.get("sliding_window") is None or fields.get("use_sliding_window") is False:
        return positions
    return min(positions, _integer(fields, "sliding_window", 2, 2**30))


def _either(
    fields: dict[str, Any], keys: Sequence[str], least: int, most: int, default: int | None = None
) -> int:
    """The integer that is there under one of some keys."""
    key = next((key for key in keys if fields.get(key) is not None), None)
    if key is None and default is not None:
        return default
    return _integer(fields, key or keys[0], least, most)


def _name(fields: dict[str, Any]) -> str:
    name = fields.get("name")
    if not isinstance(name, str) or not name.isprintable():
        raise _refuse("its name is not a line of text")
    if not 1 <= len(name.encode(errors="replace")) <= MAX_NAME_BYTES:
        raise _refuse(f"its name is empty or over {MAX_NAME_BYTES} bytes")
    if not may_be_called(name):
        raise _refuse(f"its name {name!r:.80} reads as the digest of a model")
    return name


def _integer(fields: dict[str, Any], key: str, least: int, most: int) -> int:
    value = fields.get(key)
    if type(value) is not int or not least <= value <= most:
        raise _refuse(f"{key} is not an integer within {least}..{most}")
    return value


def _shape(value: Any) -> tuple[int | None, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_DIMENSIONS:
        raise _refuse(f"input.shape is not a list of 1..{MAX_DIMENSIONS} sizes")
    for size in value:
        if size is not None and (type(size) is not int or not 1 <= size <= 2**31):
            raise _refuse("input.shape holds something other than sizes and null")
    return tuple(value)
