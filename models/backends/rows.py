"""Rows of a cache for models of the transformers library: keys and values of several sequences.

Every layer's keys and values lie in one block with a row for each sequence, so that answers join
and leave a running batch; positions and masks are given with each call.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class Rows:
    """Where the new tokens of a call stand in the cache: set before each call of the model."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.place(0, [0], 1)

    def place(self, first: int, starts: Sequence[int], count: int) -> None:
        """`count` new tokens in each of the rows from `first` on, after the first `starts`."""
        begin = torch.tensor(starts, device=self._device)[:, None]
        self.positions = begin + torch.arange(count, device=self._device)  # (B, T)
        self.end = max(starts) + count
        self.view = slice(first, first + len(starts))
        self.rows = torch.arange(first, first + len(starts), device=self._device)[:, None]
        # A token sees its own sequence up to itself; what stale or shorter rows hold is masked.
        seen = torch.arange(self.end, device=self._device)
        self.mask = (seen <= self.positions[:, :, None])[:, None]  # (B, 1, T, S)


class RowLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer, of all rows: two of (rows, H, S, D)."""

    def __init__(self, rows: Rows, count: int, context: int) -> None:
        super().__init__()
        self._rows, self._count, self._context = rows, count, context
        self._stored: tuple[Tensor, Tensor] | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Set memory aside for what is like these keys and values."""
        states = key_states, value_states
        keys, values = (untouched(self._count, self._context, each) for each in states)
        self._stored = keys, values

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Store new keys and values (B, H, T, D); all of these rows so far, (B, H, S, D)."""
        if self._stored is None:
            self.lazy_initialization(key_states, value_states)
        assert self._stored is not None
        keys, values = self._stored
        rows = self._rows
        keys[rows.rows, :, rows.positions] = key_states.transpose(1, 2)
        values[rows.rows, :, rows.positions] = value_states.transpose(1, 2)
        return keys[rows.view, :, : rows.end], values[rows.view, :, : rows.end]

    def move(self, source: int, target: int, count: int) -> None:
        """Copy the first `count` tokens of one row to another."""
        for stored in self._stored or ():
            stored[target, :, :count] = stored[source, :, :count]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many tokens are seen, from which on."""
        return self._rows.end, 0

    def get_seq_length(self) -> int:
        """How many tokens the longest row has before this call."""
        return int(self._rows.end - self._rows.positions.shape[1])

    def get_max_length(self) -> int:
        """How many tokens a row can hold."""
        return self._context


def untouched(rows: int, context: int, like: Tensor) -> Tensor:
    """Zeros of (rows, H, S, D), of which the system gives memory page by page as rows grow."""
    shape = (rows, like.shape[1], context, like.shape[-1])
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    size = like.element_size() * int(np.prod(shape))
    return torch.from_numpy(np.zeros(size, np.uint8)).view(like.dtype).view(shape)


class Memory:
    """A cache of some rows, each as long as the context, in the numbers that are put into it."""

    def __init__(self, layers: int, rows: int, context: int, device: torch.device) -> None:
        self._device = device
        self._places = Rows(device)
        self._layers = [RowLayer(self._places, rows, context) for _ in range(layers)]
        self._cache = Cache(layers=list(self._layers))
        self._lengths = [0] * rows
        """Tokens stored of each row."""

    def call(
        self,
        network: Any,
        first: int,
        starts: Sequence[int],
        tokens: Sequence[Sequence[int]],
        **more: object,
    ) -> Any:
        """The network's output for new tokens (B, T), which are stored from row `first` on."""
        count = len(tokens[0])
        self._places.place(first, starts, count)
        self._lengths[first : first + len(starts)] = [start + count for start in starts]
        return network(
            input_ids=torch.tensor(tokens, device=self._device),
            position_ids=self._places.positions,
            attention_mask=self._places.mask,
            cache=self._cache,
            use_cache=True,
            **more,
        )

    def move(self, source: int, target: int) -> None:
        """Copy what is stored of one row to another."""
        for layer in self._layers:
            layer.move(source, target, self._lengths[source])
        self._lengths[target] = self._lengths[source]
