"""Which files a model may have: safetensors and JSON, and nothing that is, or asks for, a program.

What is given to peers, and taken from them, has these names and no others.
"""

import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ledger.errors import Invalid, Reason

CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"
TOKENIZER: Final = "tokenizer.json"
TEMPLATE: Final = "chat_template.jinja"
INDEX: Final = "model.safetensors.index.json"
GENERATION: Final = "generation_config.json"
TOKENIZER_CONFIG: Final = "tokenizer_config.json"
SENTENCES: Final = "sentence_bert_config.json"
MODULES: Final = "modules.json"
POOLING: Final = "1_Pooling/config.json"
OPTIONAL: Final = (TOKENIZER_CONFIG, GENERATION, TEMPLATE, SENTENCES, MODULES, POOLING)
"""Of a directory of the transformers library: those that are there decide the answers too."""
PROGRAM: Final = "model.pt2"
"""An exported program: of the operator's own, never of a peer."""
KEPT: Final = "manifest"
"""The file, beside a model's own, that keeps its manifest."""
WEIGHTS_END: Final = ".safetensors"
PLAIN: Final = frozenset({CONFIG, TOKENIZER, INDEX, *OPTIONAL})
"""All but weights."""
MAX_CONFIG_BYTES: Final = 65_536
MAX_TEMPLATE_BYTES: Final = 2**16
MAX_TOKENIZER_BYTES: Final = 64 * 2**20
"""The largest known, of 262,144 tokens, has 33 MB."""
MAX_JSON_BYTES: Final = 8 * 2**20
"""Of any other JSON file; some tokenizer_config.json list every added token."""
_LIMITS: Final = {
    CONFIG: MAX_CONFIG_BYTES,
    TEMPLATE: MAX_TEMPLATE_BYTES,
    TOKENIZER: MAX_TOKENIZER_BYTES,
}
_WEIGHTS: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,110}\.safetensors", re.ASCII)
PICKLES: Final = frozenset({
    ".bin", ".ckpt", ".dill", ".joblib", ".pickle", ".pkl", ".pt", ".pth",
})  # fmt: skip
"""What torch and scikit-learn write by default: loading one runs whatever it says."""
ASKS_FOR_CODE: Final = ("auto_map", "custom_pipelines", "trust_remote_code")
"""Keys with which JSON files of a model name Python code of its author's to be run."""


def belongs(name: str) -> bool:
    """Whether a model's file may have this name."""
    return name in PLAIN or is_of_weights(name)


def is_of_weights(name: str) -> bool:
    """Whether a file of a model's weights may have this name."""
    return _WEIGHTS.fullmatch(name) is not None


def most_bytes(name: str) -> int | None:
    """Of a model's file of this name; None for weights, which a manifest bounds."""
    return None if name.endswith(WEIGHTS_END) else _LIMITS.get(name, MAX_JSON_BYTES)


def refuse_strangers(directory: Path) -> None:
    """Return if what a directory holds under the names of a model's files are files of its own.

    Opening a pipe or a device may take for ever, and a link may lead to what nobody meant to give.
    A link as Hugging Face's cache has them is fine: from snapshots/X/FILE to blobs/Y beside
    snapshots. Raises Invalid BAD_MODEL, OSError.
    """
    blobs = directory.resolve().parent.parent / "blobs"
    for path in sorted(directory.iterdir()):
        inner = [name for name in PLAIN if name.startswith(f"{path.name}/")]
        if inner and stat.S_ISLNK(path.lstat().st_mode):
            raise _refuse_link(path.name)
        for name in (path.name, *inner):
            if _may_be_read(name):
                _refuse_stranger(directory, name, blobs)


def _may_be_read(name: str) -> bool:
    return name in PLAIN or name in (PROGRAM, KEPT) or name.endswith(WEIGHTS_END)


def _refuse_stranger(directory: Path, name: str, blobs: Path) -> None:
    path = directory / name
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):  # such as a subdirectory without its config
        return
    if stat.S_ISLNK(mode):
        target = Path(os.path.realpath(path))
        if not target.is_relative_to(blobs) or not target.is_file():
            raise _refuse_link(name)
    elif not stat.S_ISREG(mode):
        raise Invalid(Reason.BAD_MODEL, f"{name} is not a file")


def _refuse_link(name: str) -> Invalid:
    detail = f"{name} is a link out of the model's directory: put the file itself there"
    return Invalid(Reason.BAD_MODEL, detail)


def refuse_pickles(directory: Path) -> None:
    """Return if there is no pickle in a directory. Raises Invalid BAD_MODEL, OSError."""
    for path in sorted(directory.iterdir()):
        if path.suffix.lower() in PICKLES:
            detail = f"{path.name} may be a pickle, which runs code when it is loaded: take it out"
            raise Invalid(Reason.BAD_MODEL, f"{detail}; yuma reads safetensors and JSON only")


def refuse_code(name: str, fields: Mapping[str, Any]) -> None:
    """Return if a JSON file of a model asks for no code to be run. Raises Invalid BAD_MODEL."""
    for key in ASKS_FOR_CODE:
        if fields.get(key):
            detail = f"{name} asks for its author's code to be run ({key}), which yuma never does"
            raise Invalid(Reason.BAD_MODEL, detail)


def refuse_code_in(directory: Path, names: tuple[str, ...], limit: int) -> None:
    """Return if none of a directory's JSON files asks for code to be run; `limit`: bytes of each.

    Raises Invalid BAD_MODEL, OSError.
    """
    for name in names:
        if name.endswith(".json") and name != TOKENIZER and (directory / name).exists():
            refuse_code(name, _object_in(directory / name, limit))


def _object_in(path: Path, limit: int) -> dict[str, Any]:
    data = read_small(path, limit)
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise Invalid(Reason.BAD_MODEL, f"{path.name}: it is not JSON") from None
    return fields if isinstance(fields, dict) else {}


def read_small(path: Path, limit: int) -> bytes:
    """A file of at most `limit` bytes. Raises Invalid BAD_MODEL, OSError."""
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Invalid(Reason.BAD_MODEL, f"{path.name} is over {limit} bytes")
    return data
