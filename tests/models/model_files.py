"""Model directories with random weights of any size, made without torch."""

import json
import random
from pathlib import Path

from models.config import GptConfig, config_bytes
from models.tokenizer import Tokenizer

PIECE_BYTES = 2**20


def write_random(directory: Path, layers: int = 3, width: int = 256, seed: int = 0) -> Path:
    """A directory that is sound as far as its files' heads tell; as it comes, with 5 MB."""
    directory.mkdir(parents=True)
    config = GptConfig(f"random-{seed}", 257, 64, layers, 4, width)
    size = 2 * config.parameters
    tensor = {"dtype": "F16", "shape": [config.parameters], "data_offsets": [0, size]}
    header = json.dumps({"all": tensor}).encode()
    dice = random.Random(seed)
    with (directory / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        while size:
            size -= file.write(dice.randbytes(min(size, PIECE_BYTES)))
    Tokenizer([]).save(directory / "tokenizer.json")
    (directory / "config.json").write_bytes(config_bytes(config))
    return directory
