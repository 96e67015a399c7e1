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
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ledger.errors import Invalid, Reason
from models.catalog import MEGABYTE, Model, available_memory, open_model
from models.files import CONFIG, TOKENIZER, TOKENIZER_CONFIG
from models.pretrained import OFFLINE, read_json

MAGIC = b"GGUF"
DIGITS = {"type": "Digits", "individual_digits": True}
BEFORE_BYTES: Mapping[str, tuple[dict[str, Any], ...]] = {"smollm": (DIGITS,)}
"""How a tokenizer cuts words before it looks at bytes, by the name that llama.cpp has for it: what
transformers 5.24 does not read from the file."""
NUMBER_BYTES = 6
"""Of memory for each number of the weights: unpacked into four bytes, and as they are written."""
LIBRARY_BYTES = 300 * 2**20
"""What torch and transformers take before (measured: 250 MiB)."""
KEPT = ("bos_token", "eos_token", "unk_token", "pad_token")
"""Of tokenizer_config.json; the rest says how the tokenizer was loaded."""


def convert(path: Path, directory: Path) -> Model:
    """Make a directory, which must be empty or not there, of a GGUF file.

    Raises Invalid: BAD_MODEL, NO_MEMORY; OSError.
    """
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise Invalid(Reason.BAD_MODEL, f"{path.name} is not a GGUF file")
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise Invalid(Reason.BAD_MODEL, f"{directory} is not empty")
    os.environ.update(OFFLINE)
    with _as_refusal(f"{path.name} is cut off or damaged"):
        numbers, cutter = _read(path)
    validate_memory(path.name, numbers, available_memory())
    with _as_refusal(f"{path.name} was not converted"):
        _write(path, directory, cutter)
    return open_model(directory)


def validate_memory(name: str, numbers: int, available: int | None) -> None:
    """Return if so many numbers can be converted in the memory that is free.

    Raises Invalid NO_MEMORY.
    """
    need = LIBRARY_BYTES + NUMBER_BYTES * numbers
    if available is not None and need > available:
        free = f"{available // MEGABYTE} MB are free"
        detail = f"{name} needs {need // MEGABYTE} MB of memory to be converted, {free}"
        raise Invalid(Reason.NO_MEMORY, detail)


def _read(path: Path) -> tuple[int, str]:
    """How many numbers a file holds, all of which are there, and how its tokenizer cuts words."""
    from gguf import GGUFReader

    reader = GGUFReader(path)
    cutter = reader.fields.get("tokenizer.ggml.pre")
    numbers = sum(int(tensor.n_elements) for tensor in reader.tensors)
    return numbers, cutter.contents() if cutter is not None else ""


@contextmanager
def _as_refusal(what: str) -> Iterator[None]:
    """Make one sentence of whatever a library raises at a file that it does not like."""
    try:
        yield
    except (ImportError, Invalid):
        raise
    except Exception as error:
        line = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        raise Invalid(Reason.BAD_MODEL, f"{what}: {line}") from None


def _write(path: Path, directory: Path, cutter: str) -> None:
    import torch
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
    _mend(directory, cutter)
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
    parser.add_argument("--until-eof", action="store_true", help="end when standard input does")
    said = parser.parse_args(arguments)
    if said.until_eof:
        threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        model = convert(said.file, said.directory)
    except ImportError as error:
        what = f"{said.file.name} was not converted: {error}"
        print(f"{what}; it comes with: pip install 'yumad[hf]'", file=sys.stderr)
        return 1
    except (Invalid, OSError) as error:
        print(getattr(error, "detail", "") or error, file=sys.stderr)
        return 1
    print(model.digest.hex())
    return 0


def _end_with_input() -> None:
    """What a daemon started is not to go on writing to its home when that was killed."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
