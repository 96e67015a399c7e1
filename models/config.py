"""What a model directory's config.json says, read and checked; no torch here.

Two kinds of directory: `text-generation` (our GPT) and `tensor` (an exported program).
"""

import json
from dataclasses import dataclass
from typing import Any

from ledger.errors import Invalid, Reason
from models.files import refuse_code
from models.types import ANSWERS, Kind

MAX_CONFIG_BYTES = 65_536
MAX_NAME_BYTES = 128
INPUT_DTYPES = ("float32", "float64", "float16", "int32", "int64", "uint8")
"""Names that numpy and torch share; more are added when a model needs them."""
MAX_DIMENSIONS = 8
"""As many as a Tensor record holds."""


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


Config = GptConfig | TensorConfig


def read_config(data: bytes) -> Config:
    """The config of a config.json. Raises Invalid BAD_MODEL."""
    fields = _fields(data)
    refuse_code("config.json", fields)
    kind = fields.pop("kind", None)
    if kind == Kind.TEXT:
        return _gpt_config(fields)
    if kind == Kind.TENSOR:
        return _tensor_config(fields)
    raise _refuse(f"its kind is {kind!r:.80}, not one of {', '.join(ANSWERS)}")


def config_bytes(config: Config) -> bytes:
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


def _name(fields: dict[str, Any]) -> str:
    name = fields.get("name")
    if not isinstance(name, str) or not name.isprintable():
        raise _refuse("its name is not a line of text")
    if not 1 <= len(name.encode(errors="replace")) <= MAX_NAME_BYTES:
        raise _refuse(f"its name is empty or over {MAX_NAME_BYTES} bytes")
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
