"""Computing with the weights of 16 bits that a model has, in 32: what differs is not the rounding.

The same weights give the same numbers to a few millionths on any machine, whatever it writes with.
Each layer's weights are widened for its own call only, so that a model need not be there twice.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def exact(network: nn.Module) -> Iterator[None]:
    """Within, a network computes in float32."""
    kept: dict[nn.Module, dict[str, nn.Parameter | None]] = {}

    def widen(layer: nn.Module, _given: Any) -> None:
        kept[layer] = dict(layer._parameters)
        for name, weight in kept[layer].items():
            if weight is not None:
                layer._parameters[name] = weight.float()  # type: ignore[assignment]

    def restore(layer: nn.Module, _given: Any, _found: Any) -> None:
        layer._parameters.update(kept.pop(layer))

    layers = [layer for layer in network.modules() if layer._parameters]
    before = [layer.register_forward_pre_hook(widen) for layer in layers]
    after = [layer.register_forward_hook(restore, always_call=True) for layer in layers]
    try:
        yield
    finally:
        for hook in (*before, *after):
            hook.remove()
        for layer in list(kept):
            restore(layer, None, None)
