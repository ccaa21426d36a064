"""Functions recorded as CUDA graphs, with a recording on the CPU that keeps to the same rule: buffers stay where they are."""

import warnings

import pytest
import torch
from torch.utils._pytree import tree_leaves

from foresight.world_model.graphs import Graphed


def on_cpu(function, inputs):
    """A graph's rules without a GPU: the kernels see what lies in the recorded inputs, results lie where they first lay."""
    results = function(*inputs)

    def replay():
        for old, new in zip(tree_leaves(results), tree_leaves(function(*inputs)), strict=True):
            old.copy_(new)

    return replay, results


def test_each_call_sees_its_own_inputs_and_keeps_its_own_results():
    """Results of an earlier call are not overwritten by a later one; inputs may be nested; each set of shapes has its graph."""
    recorded = []

    def record(function, inputs):
        recorded.append([x.shape for x in tree_leaves(inputs)])
        return on_cpu(function, inputs)

    graphed = Graphed(lambda pair, c: (pair[0] * pair[1], [c + 1]), record)
    inputs = [((torch.randn(n), torch.randn(n)), torch.randn(2)) for n in (3, 3, 5, 3)]
    found = [graphed(*each) for each in inputs]
    for ((a, b), c), (product, (more,)) in zip(inputs, found, strict=True):
        assert torch.equal(product, a * b) and torch.equal(more, c + 1)
    assert len(recorded) == 2


def test_where_nothing_can_be_recorded_the_function_itself_runs_and_that_is_said():
    """One warning with the reason, then no further try; this machine may have a GPU or not."""
    tries = []

    def record(function, inputs):
        tries.append(1)
        raise RuntimeError("operation not permitted when stream is capturing")

    graphed = Graphed(lambda x: x + 1, record)
    with pytest.warns(RuntimeWarning, match="not permitted when stream is capturing"):
        assert float(graphed(torch.tensor(1.0))) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert float(graphed(torch.tensor(2.0))) == 3
    assert len(tries) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_without_a_gpu_that_is_the_reason():
    """The warning names it."""
    with pytest.warns(RuntimeWarning, match="no GPU can be seen"):
        assert float(Graphed(torch.neg)(torch.tensor(1.0))) == -1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_recorded_function_is_the_function():
    """The same numbers from the graph, call after call."""
    graphed = Graphed(lambda x: (x @ x).softmax(-1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            x = torch.randn(16, 16, device="cuda")
            assert torch.equal(graphed(x), (x @ x).softmax(-1))


def test_what_is_no_tensor_is_refused():
    """It would be frozen into the graph."""
    with pytest.raises(TypeError, match="tensors alone, got int"):
        Graphed(lambda x, n: x * n)(torch.zeros(1), 2)
