"""A function of tensors as a CUDA graph: one launch where it would be hundreds, which on a GPU take longer than the arithmetic.

Shapes are static: a graph is recorded for each set of shapes that a function is called with. Knows no networks.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

WARM_UP = 3  # calls before the recording, in which libraries choose their kernels and take their memory
Recording = tuple[Callable[[], Any], Any]  # what runs the recorded kernels again, and where their results then are


class Graphed:
    """A function of tensors, or of tuples and lists of them; each call copies the inputs in and the results out.

    Where recording fails (no GPU, no memory left, an operation that waits for the processor), the function itself is called
    from then on, and a RuntimeWarning says why.
    """

    def __init__(self, function: Callable, record: Callable[[Callable, tuple], Recording] | None = None) -> None:
        """`record` replaces CUDA's own recording."""
        self.function, self.record = function, record or record_on_gpu
        self._recorded: dict[tuple, tuple[list[Tensor], Callable[[], Any], Any]] = {}
        self._failed = False

    def __call__(self, *inputs: Any) -> Any:
        """Raises TypeError for inputs that are no tensors."""
        leaves: list[Tensor] = []
        key = _shapes(inputs, leaves)
        if key not in self._recorded and not self._failed:
            held = tree_map(torch.clone, inputs)
            try:
                self._recorded[key] = (tree_leaves(held), *self.record(self.function, held))
            except RuntimeError as error:
                self._failed = True
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                warnings.warn(f"No CUDA graph could be recorded ({reason}); planning runs without.", RuntimeWarning, stacklevel=2)
        if self._failed:
            return self.function(*inputs)
        held, replay, results = self._recorded[key]
        for inside, given in zip(held, leaves, strict=True):
            inside.copy_(given)
        replay()
        return results.clone() if isinstance(results, Tensor) else tree_map(torch.clone, results)


def _shapes(inputs: Any, leaves: list[Tensor]) -> tuple:
    """What tells inputs of one graph from those of another; the tensors themselves are added to `leaves`. Called each time."""
    if isinstance(inputs, Tensor):
        leaves.append(inputs)
        return inputs.shape, inputs.dtype, inputs.device
    if not isinstance(inputs, tuple | list):
        raise TypeError(f"A recorded function takes tensors alone, got {type(inputs).__name__}.")
    return tuple(_shapes(each, leaves) for each in inputs)


def record_on_gpu(function: Callable, inputs: tuple) -> Recording:
    """Warms the function up beside the current stream, as recording needs it, then records one call."""
    if not torch.cuda.is_available():
        raise RuntimeError("no GPU can be seen")
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(WARM_UP):
            function(*inputs)
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = function(*inputs)
    return graph.replay, results
