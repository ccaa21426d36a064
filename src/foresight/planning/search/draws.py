"""Where searches get their chance from: unit noise by the candidate, from a generator that is passed in.

A method takes any source: with the same one and the same seed every method sees the same first candidates. `white` draws where
its generator is, the others on the CPU.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from foresight.interfaces import Draws


def white(steps: int, numbers: int, generator: torch.Generator) -> Draws:
    """Independent noise."""
    return lambda count: torch.randn(count, steps, numbers, generator=generator, device=generator.device)


def blockwise(blocks: int, per_block: int, numbers: int, generator: torch.Generator) -> Draws:
    """Unit noise that is constant over a block for the most part: motion, not tremor."""

    def draw(count: int) -> Float[Tensor, "S N U"]:
        block = torch.randn(count, blocks, 1, numbers, generator=generator)
        step = torch.randn(count, blocks, per_block, numbers, generator=generator)
        return (0.9 * block + 0.44 * step).reshape(count, blocks * per_block, numbers)

    return draw


def coloured(steps: int, numbers: int, generator: torch.Generator, exponent: float = 3.0) -> Draws:
    """Noise whose power falls with frequency as f^-exponent, of unit variance (iCEM uses 2 to 4)."""
    frequency = torch.fft.rfftfreq(steps).clamp_min(1 / steps)
    amplitude = frequency ** (-exponent / 2)

    def draw(count: int) -> Float[Tensor, "S N U"]:
        spectrum = torch.fft.rfft(torch.randn(count, numbers, steps, generator=generator)) * amplitude
        noise = torch.fft.irfft(spectrum, n=steps).transpose(1, 2)
        return noise / unit

    weights = torch.full_like(amplitude, 2.0)
    weights[0] = 1.0
    if steps % 2 == 0:
        weights[-1] = 1.0
    unit = ((weights * amplitude.square()).sum() / steps).sqrt()
    return draw
