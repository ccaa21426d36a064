"""Batches spread over processes: means and lists over all of them, with gradients. In one process nothing happens here.

Gradients flow through: the backward pass of a sum over processes is the sum over processes of the gradients. With each process's
loss a mean over its own part, and gradients averaged over processes as DistributedDataParallel does, the gradient is that of
one process with the whole batch. All parts must be of one size.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, distributed
from torch.nn.modules.batchnorm import _BatchNorm


def processes() -> int:
    """How many processes share a batch."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total


def mean_over_processes(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The mean of every process's `x`."""
    return x if processes() == 1 else _Sum.apply(x) / processes()


def of_all_processes(x: Float[Tensor, "B *n"]) -> Float[Tensor, "all *n"]:
    """Every process's `x`, one after the other."""
    if processes() == 1:
        return x
    room = x.new_zeros(processes(), *x.shape)
    room[distributed.get_rank()] = x
    return _Sum.apply(room).flatten(0, 1)


class BatchNorm(_BatchNorm):
    """Batch normalisation over the batch of all processes, on any device; torch's own in one process and in operation."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"Batch normalisation needs (batch, features, ...), got {list(input.shape)}.")

    def forward(self, input: Float[Tensor, "B F *n"]) -> Float[Tensor, "B F *n"]:
        if not self.training or processes() == 1:
            return super().forward(input)
        x, others = input.float(), [d for d in range(input.dim()) if d != 1]
        shape = [-1 if d == 1 else 1 for d in range(input.dim())]
        mean = mean_over_processes(x.mean(others))
        centred = x - mean.view(shape)
        variance = mean_over_processes(centred.square().mean(others))
        with torch.no_grad():
            count = processes() * x.numel() / x.shape[1]
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale.view(shape) + self.bias.view(shape)).to(input.dtype)
