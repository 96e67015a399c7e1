"""A small modern GPT in one file, with a key-value cache for batched decoding.

Rotary positions, RMS norm, tied embeddings, squared ReLU.
Shapes: B sequences, T new tokens each, S cached tokens, H heads, D per head, C = H * D, V tokens.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from ledger.errors import Invalid, Reason
from models.config import GptConfig

ROTARY_BASE = 10_000.0
INITIAL_SPREAD = 0.02


class KeyValueCache:
    """Keys and values of `rows` sequences, room for a whole context each."""

    def __init__(self, config: GptConfig, rows: int) -> None:
        head = config.width // config.heads
        shape = (config.layers, rows, config.heads, config.context, head)  # (L, B, H, S, D)
        self.keys = torch.zeros(shape)
        self.values = torch.zeros(shape)

    def move(self, source: int, target: int) -> None:
        """Copy one sequence to another row."""
        self.keys[:, target] = self.keys[:, source]
        self.values[:, target] = self.values[:, source]


class Place:
    """Where the new tokens of a forward stand: rows of the cache, and a position for each token."""

    def __init__(self, cache: KeyValueCache, first_row: int, starts: Tensor, count: int) -> None:
        self.cache = cache
        self.positions = starts[:, None] + torch.arange(count)  # (B, T)
        self.end = int(self.positions.max()) + 1
        self.rows = torch.arange(first_row, first_row + len(starts))[:, None]  # (B, 1)
        self.view = slice(first_row, first_row + len(starts))
        # A token sees its own sequence up to itself; what stale or shorter rows hold is masked.
        self.mask = (torch.arange(self.end) <= self.positions[:, :, None])[:, None]  # (B, 1, T, S)

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values (B, T, H, D); all of these rows so far, (B, H, S, D)."""
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        keys[self.rows, :, self.positions] = key
        values[self.rows, :, self.positions] = value
        return keys[self.view, :, : self.end], values[self.view, :, : self.end]


class Attention(nn.Module):
    """Causal attention over the tokens at hand, or over a cache."""

    def __init__(self, config: GptConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads = config.heads
        self.mix = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], place: Place | None) -> Tensor:
        batch, count, width = x.shape
        mixed = self.mix(x).view(batch, count, 3, self.heads, width // self.heads)
        query, key, value = mixed.unbind(2)  # (B, T, H, D)
        query, key = norm(rotated(query, turn)), norm(rotated(key, turn))
        if place is None:
            key, value = key.transpose(1, 2), value.transpose(1, 2)  # (B, H, T, D)
        else:
            key, value = place.extend(self.layer, key, value)  # (B, H, S, D)
        y = functional.scaled_dot_product_attention(
            query.transpose(1, 2),
            key,
            value,
            attn_mask=None if place is None else place.mask,
            is_causal=place is None,
        )
        out: Tensor = self.out(y.transpose(1, 2).reshape(batch, count, width))
        return out


class Block(nn.Module):
    """One layer: attention, then a two-matrix network, each added to the stream."""

    def __init__(self, config: GptConfig, layer: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(config, layer)
        self.up = nn.Linear(config.width, 4 * config.width, bias=False)
        self.down = nn.Linear(4 * config.width, config.width, bias=False)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], place: Place | None) -> Tensor:
        x = x + self.drop(self.attention(norm(x), turn, place))
        wide: Tensor = functional.relu(self.up(norm(x))).square()  # (B, T, 4C)
        out: Tensor = x + self.drop(self.down(wide))
        return out


class Gpt(nn.Module):
    """Token ids in, logits of the next token out. `dropout` acts in training only."""

    cosines: Tensor
    sines: Tensor

    def __init__(self, config: GptConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(config, i, dropout) for i in range(config.layers))
        cosines, sines = rotary_table(config)
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)

    def initialise(self) -> None:
        """Fresh weights: each block starts as the identity, its output matrices being zero."""
        nn.init.normal_(self.embedding.weight, std=INITIAL_SPREAD)
        for name, weight in self.blocks.named_parameters():
            if name.endswith(("out.weight", "down.weight")):
                nn.init.zeros_(weight)
            else:
                nn.init.normal_(weight, std=weight.shape[1] ** -0.5)

    def forward(self, tokens: Tensor, place: Place | None = None) -> Tensor:
        """Final states (B, T, C) of tokens (B, T), from position 0 or at a place in a cache."""
        if place is None:
            turn = self.cosines[: tokens.shape[1], None], self.sines[: tokens.shape[1], None]
        else:
            turn = self.cosines[place.positions, None], self.sines[place.positions, None]
        x: Tensor = self.drop(norm(self.embedding(tokens)))
        for block in self.blocks:
            x = block(x, turn, place)
        return norm(x)

    def logits(self, states: Tensor) -> Tensor:
        """Scores of each next token (..., V) from final states (..., C)."""
        return functional.linear(states, self.embedding.weight)


def load_gpt(config: GptConfig, path: Path) -> Gpt:
    """The model of a config with the weights of a safetensors file that the catalog found sound.

    Raises Invalid BAD_MODEL.
    """
    model = Gpt(config)
    try:
        weights = {name: weight.float() for name, weight in load_file(path).items()}
    except SafetensorError as error:
        raise Invalid(Reason.BAD_MODEL, f"{path.name}: {error}") from None
    due = {name: weight.shape for name, weight in model.state_dict().items()}
    if due != {name: weight.shape for name, weight in weights.items()}:
        raise Invalid(Reason.BAD_MODEL, "the weights' names or shapes are not those of config.json")
    model.load_state_dict(weights)
    return model.eval()


def norm(x: Tensor) -> Tensor:
    """RMS norm over the last dimension, without a learnt scale."""
    return functional.rms_norm(x, (x.shape[-1],))


def rotary_table(config: GptConfig) -> tuple[Tensor, Tensor]:
    """Cosine and sine of each position's turn for each pair of a head, both (context, D / 2)."""
    half = config.width // config.heads // 2
    speeds = ROTARY_BASE ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(config.context, dtype=torch.float64)[:, None] * speeds
    return angles.cos().float(), angles.sin().float()


def rotated(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Queries or keys (B, T, H, D) turned by their positions' angles."""
    cosine, sine = turn
    left, right = x.chunk(2, dim=-1)
    return torch.cat((left * cosine - right * sine, left * sine + right * cosine), dim=-1)
