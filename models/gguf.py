"""A GGUF file made into a directory that is served: `python -m models.gguf FILE DIRECTORY`.

* Weights become bfloat16 in safetensors, whatever they were packed as; the tokenizer and the chat
  template, which a GGUF holds too, become files. The same file gives the same bytes on any machine
  with the same versions of torch and transformers, hence the same digest.
* It takes seconds of all the memory that the model has: in a process of its own.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ledger.errors import Invalid, Reason
from models.catalog import Model, open_model
from models.files import CONFIG, TOKENIZER, TOKENIZER_CONFIG
from models.pretrained import OFFLINE, read_json

MAGIC = b"GGUF"
DIGITS = {"type": "Digits", "individual_digits": True}
BEFORE_BYTES: Mapping[str, tuple[dict[str, Any], ...]] = {"smollm": (DIGITS,)}
"""How a tokenizer cuts words before it looks at bytes, by the name that llama.cpp has for it: what
transformers 5.24 does not read from the file."""
KEPT = ("bos_token", "eos_token", "unk_token", "pad_token")
"""Of tokenizer_config.json; the rest says how the tokenizer was loaded."""


def convert(path: Path, directory: Path) -> Model:
    """Make a directory, which must be empty or not there, of a GGUF file.

    Raises Invalid BAD_MODEL, OSError.
    """
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise Invalid(Reason.BAD_MODEL, f"{path.name} is not a GGUF file")
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise Invalid(Reason.BAD_MODEL, f"{directory} is not empty")
    os.environ.update(OFFLINE)
    try:
        _write(path, directory)
    except (ImportError, Invalid):
        raise
    except Exception as error:  # whatever the library raises at a file it does not like
        line = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        raise Invalid(Reason.BAD_MODEL, f"{path.name}: {line}") from None
    return open_model(directory)


def _write(path: Path, directory: Path) -> None:
    import torch
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    place: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True}
    network = AutoModelForCausalLM.from_pretrained(
        path.parent,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
        **place,
    )
    network.save_pretrained(directory)
    AutoTokenizer.from_pretrained(path.parent, **place).save_pretrained(directory)
    cutter = GGUFReader(path).fields.get("tokenizer.ggml.pre")
    _mend(directory, cutter.contents() if cutter is not None else "")
    for file in directory.iterdir():
        file.chmod(0o644)


def _mend(directory: Path, cutter: str) -> None:
    """Put right what transformers leaves out of the tokenizer, and leave out what is of here."""
    tokenizer = read_json(directory / TOKENIZER, 2**26)
    before = BEFORE_BYTES.get(cutter, ())
    if before:
        steps = [*before, tokenizer["pre_tokenizer"]]
        tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
        _put(directory / TOKENIZER, tokenizer)
    said = read_json(directory / TOKENIZER_CONFIG)
    _put(directory / TOKENIZER_CONFIG, {key: said[key] for key in KEPT if key in said})
    config = read_json(directory / CONFIG)
    _put(directory / CONFIG, {key: config[key] for key in config if not key.startswith("_")})


def _put(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


def main(arguments: list[str] | None = None) -> int:
    """Convert, and say what came out on standard output; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m models.gguf", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("directory", type=Path)
    said = parser.parse_args(arguments)
    try:
        model = convert(said.file, said.directory)
    except ImportError as error:
        print(f"{error}; it comes with: pip install 'yumad[hf]'", file=sys.stderr)
        return 1
    except (Invalid, OSError) as error:
        print(getattr(error, "detail", "") or error, file=sys.stderr)
        return 1
    print(model.digest.hex())
    return 0


if __name__ == "__main__":
    sys.exit(main())
