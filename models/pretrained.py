"""Directories of the transformers library: which of their files count; no torch here.

* Weights are model.safetensors, or shards that model.safetensors.index.json names; pickles are not
  looked at. The tokenizer is tokenizer.json.
* Of the files in OPTIONAL those that are there decide the answers too. No file that could make the
  library load or run anything else may be there.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from ledger.errors import Invalid, Reason
from models.files import INDEX, MAX_JSON_BYTES, OPTIONAL, is_of_weights
from models.header import DTYPE_BYTES, Entry, parameters_of, read_header

MAX_SHARDS = 256
FORBIDDEN = ("adapter_config.json",)
"""What the library would act upon without being asked."""
BUFFER_BYTES = {"I64": 8, "I32": 4, "U8": 1, "BOOL": 1}
"""What buffers beside the weights are made of."""
HALF = ("F16", "BF16")
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_SAFETENSORS_CONVERSION": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""For the transformers library: it fetches nothing, one process tokenizes in one thread, and no bar
of its own stands between the lines of the daemon's log."""


def weights_of(directory: Path, single: str) -> tuple[str, ...]:
    """The files of the weights: one, or shards. Raises Invalid BAD_MODEL, OSError."""
    if (directory / single).is_file() or not (directory / INDEX).is_file():
        return (single,)
    fields = read_json(directory / INDEX)
    places = fields.get("weight_map")
    names = set(places.values()) if isinstance(places, dict) and _are_texts(places) else set()
    if not 1 <= len(names) <= MAX_SHARDS or not all(map(is_of_weights, names)):
        raise Invalid(Reason.BAD_MODEL, f"{INDEX} does not name 1..{MAX_SHARDS} safetensors files")
    return tuple(sorted(names))


def files_of(directory: Path, single: str) -> tuple[str, ...]:
    """The files beside config.json and tokenizer.json that decide the answers.

    Raises Invalid BAD_MODEL, OSError.
    """
    for name in FORBIDDEN:
        if (directory / name).exists():
            raise Invalid(Reason.BAD_MODEL, f"{name}: weights beside the model's are not served")
    weights = weights_of(directory, single)
    index = () if weights == (single,) else (INDEX,)
    return weights + index + tuple(name for name in OPTIONAL if (directory / name).is_file())


def measured(directory: Path, weights: tuple[str, ...]) -> tuple[int, bool]:
    """How many numbers the weights are, and whether all are stored in 16 bits.

    Raises Invalid BAD_MODEL, OSError.
    """
    entries = tuple(_floats(directory, weights))
    return parameters_of(entries), all(entry.dtype in HALF for entry in entries)


def _floats(directory: Path, weights: tuple[str, ...]) -> Iterator[Entry]:
    for name in weights:
        entries = read_header(directory / name, DTYPE_BYTES | BUFFER_BYTES)
        yield from (entry for entry in entries if entry.dtype in DTYPE_BYTES)


def read_json(path: Path, limit: int = MAX_JSON_BYTES) -> dict[str, object]:
    """The object in a JSON file; an empty one where there is no file. Raises Invalid BAD_MODEL."""
    if not path.is_file():
        return {}
    data = path.read_bytes() if path.stat().st_size <= limit else b""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise Invalid(Reason.BAD_MODEL, f"{path.name} is no JSON object of {limit} bytes at most")
    return fields


def _are_texts(fields: dict[str, object]) -> bool:
    return all(type(value) is str for value in fields.values())
