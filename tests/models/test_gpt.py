from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ledger.errors import Invalid, Reason
from models.config import GptConfig
from models.gpt import Gpt, KeyValueCache, Place, load_gpt
from tests.models.model_worker import TINY, tiny_gpt, write_tiny

TOKENS = torch.randint(257, (3, 30), generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def test_cached_states_equal_the_plain_forward() -> None:
    """Three rows are read in pieces of different lengths, then decoded together."""
    gpt = tiny_gpt()
    plain = gpt(TOKENS)
    cache = KeyValueCache(TINY, rows=4)
    lengths = [5, 12, 20]
    for row, length in enumerate(lengths):
        gpt(TOKENS[row : row + 1, :3], Place(cache, row, torch.tensor([0]), 3))
        rest = TOKENS[row : row + 1, 3:length]
        gpt(rest, Place(cache, row, torch.tensor([3]), length - 3))
    for _ in range(10):
        news = torch.stack([TOKENS[row, length] for row, length in enumerate(lengths)])
        states = gpt(news[:, None], Place(cache, 0, torch.tensor(lengths), 1))[:, 0]
        due = torch.stack([plain[row, length] for row, length in enumerate(lengths)])
        torch.testing.assert_close(states, due, rtol=1e-4, atol=1e-4)
        lengths = [length + 1 for length in lengths]


@torch.inference_mode()
def test_a_token_does_not_see_later_ones() -> None:
    gpt = tiny_gpt()
    changed = TOKENS.clone()
    changed[:, 20:] = 0
    torch.testing.assert_close(gpt(TOKENS)[:, :20], gpt(changed)[:, :20])
    assert not torch.allclose(gpt(TOKENS)[:, 20:], gpt(changed)[:, 20:])


@torch.inference_mode()
def test_a_moved_row_goes_on_alike() -> None:
    gpt = tiny_gpt()
    cache = KeyValueCache(TINY, rows=2)
    gpt(TOKENS[:1, :10], Place(cache, 1, torch.tensor([0]), 10))
    cache.move(1, 0)
    states = gpt(TOKENS[:1, 10:11], Place(cache, 0, torch.tensor([10]), 1))
    torch.testing.assert_close(states, gpt(TOKENS[:1, :11])[:, 10:], rtol=1e-4, atol=1e-4)


def test_fresh_blocks_are_the_identity() -> None:
    gpt = Gpt(TINY, dropout=0.1)
    gpt.initialise()
    gpt.eval()
    x = torch.randn(1, 4, TINY.width)
    turn = gpt.cosines[:4, None], gpt.sines[:4, None]
    torch.testing.assert_close(gpt.blocks[0](x, turn, None), x)


def test_loads_what_was_saved_at_half_precision(tmp_path: Path) -> None:
    gpt = tiny_gpt()
    path = tmp_path / "model.safetensors"
    save_file({name: weight.half() for name, weight in gpt.state_dict().items()}, path)
    loaded = load_gpt(TINY, path)
    assert next(loaded.parameters()).dtype == torch.float32
    torch.testing.assert_close(loaded(TOKENS), gpt(TOKENS), rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    "config",
    [
        GptConfig("tiny", 257, 64, layers=3, heads=2, width=32),
        GptConfig("tiny", 257, 64, layers=1, heads=2, width=32),
        GptConfig("tiny", 257, 64, layers=2, heads=2, width=64),
    ],
)
def test_refuses_weights_of_another_shape(tmp_path: Path, config: GptConfig) -> None:
    path = write_tiny(tmp_path) / "model.safetensors"
    with pytest.raises(Invalid) as refusal:
        load_gpt(config, path)
    assert refusal.value.reason is Reason.BAD_MODEL
