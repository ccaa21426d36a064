"""The networks: encoder, predictor, actor, critic, readouts, decoder. They know tensors, not robots.

Shape letters: B batch, C cameras, D latent, P proprioception, A action block, G goal features.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from foresight.world_model.processes import BatchNorm


class Residual(nn.Module):
    """Two 3x3 convolutions with batch normalisation, halving the image."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False)
        self.first_norm = BatchNorm(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.second_norm = BatchNorm(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(y)) + self.shortcut(x))


class CameraEncoder(nn.Module):
    """What all encoders share: features of every camera joined into one latent, and what stands in for a camera that is lost.

    `look` is a subclass's. With `spare`, a learned vector replaces the features of a camera that is not seen; without, every
    camera is needed. The last layer is affine, free for SIGReg to shape.
    """

    def __init__(self, cameras: int, features: int, spare: bool) -> None:
        super().__init__()
        self.absent = nn.Parameter(torch.zeros(cameras, features)) if spare else None
        self.project: nn.Module

    def look(self, images: Float[Tensor, "B C 3 h w"]) -> Float[Tensor, "B C F"]:
        raise NotImplementedError("look(images (B, C, 3, h, w) in [-1, 1]) -> features (B, C, F)")

    def forward(self, images: Float[Tensor, "B C 3 h w"], seen: Bool[Tensor, "B C"] | None = None) -> Float[Tensor, "B D"]:
        """`seen` tells which cameras are there; None: all."""
        features = self.look(images)
        if seen is not None and self.absent is not None:
            features = torch.where(seen.unsqueeze(-1), features, self.absent.to(features.dtype))
        elif seen is not None and not seen.all():
            raise ValueError("A camera is lost and this model was not trained to do without it (--model.spare-cameras).")
        return self.project(features.flatten(1))


class Encoder(CameraEncoder):
    """One small residual network per camera.

    It starts from 4x4 patches: on a CPU the first layers at full resolution would cost as much as all the rest.
    """

    def __init__(self, cameras: int, size: int, width: int, latent: int, spare: bool = False) -> None:
        super().__init__(cameras, 256, spare)
        if size % 16:
            raise ValueError(f"Prepared images must be a multiple of 16 pixels wide, got {size}.")
        flat = 2 * width * (size // 16) ** 2
        self.trunks = nn.ModuleList(
            nn.Sequential(
                nn.PixelUnshuffle(4),
                nn.Conv2d(48, width, 3, 1, 1, bias=False),
                BatchNorm(width),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, 1, 1, bias=False),
                BatchNorm(width),
                nn.ReLU(),
                Residual(width, 2 * width),
                Residual(2 * width, 2 * width),
                nn.Flatten(),
                nn.Linear(flat, 256, bias=False),
                BatchNorm(256),
                nn.ReLU(),
            )
            for _ in range(cameras)
        )
        self.project = nn.Sequential(nn.Linear(256 * cameras, 512, bias=False), BatchNorm(512), nn.GELU(), nn.Linear(512, latent))

    def look(self, images: Float[Tensor, "B C 3 h w"]) -> Float[Tensor, "B C 256"]:
        trunks = enumerate(self.trunks)
        return torch.stack([trunk(images[:, i].contiguous(memory_format=torch.channels_last)) for i, trunk in trunks], 1)


def normalise_images(images: UInt8[Tensor, "*n h w 3"]) -> Float[Tensor, "*n 3 h w"]:
    """Bytes to [-1, 1], channels first."""
    return images.movedim(-1, -3).float() / 127.5 - 1.0


class Modulated(nn.Module):
    """A residual MLP block whose scale, shift and gate come from the condition (AdaLN-zero)."""

    def __init__(self, width: int, hidden: int, condition: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.dropout = nn.Dropout(dropout)
        self.modulate = nn.Linear(condition, 3 * width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift, gate = self.modulate(condition).chunk(3, -1)
        return x + (1 + gate) * self.dropout(self.mlp(self.norm(x) * (1 + scale) + shift))


class Predictor(nn.Module):
    """Latent, proprioception and action block to the change of both, one block later."""

    def __init__(self, latent: int, proprio: int, block: int, width: int, depth: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.latent = latent
        self.enter = nn.Linear(latent + proprio, width)
        self.condition = nn.Sequential(nn.Linear(block + proprio, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.blocks = nn.ModuleList(Modulated(width, 3 * width, width, dropout) for _ in range(depth))
        self.leave = nn.Linear(width, latent + proprio)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(
        self, latent: Float[Tensor, "*B D"], proprio: Float[Tensor, "*B P"], block: Float[Tensor, "*B A"]
    ) -> tuple[Float[Tensor, "*B D"], Float[Tensor, "*B P"]]:
        x = self.enter(torch.cat([latent, proprio], -1))
        condition = self.condition(torch.cat([block, proprio], -1))
        for layer in self.blocks:
            x = layer(x, condition)
        change = self.leave(x)
        return latent + change[..., : self.latent], proprio + change[..., self.latent :]


def mlp(inputs: int, hidden: int, outputs: int, depth: int = 3) -> nn.Sequential:
    """Linear, LayerNorm, GELU, `depth` times, then linear."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(inputs if i == 0 else hidden, hidden), nn.LayerNorm(hidden), nn.GELU()]
    return nn.Sequential(*layers, nn.Linear(hidden, outputs))


class Decoder(nn.Module):
    """A latent to rough pictures of every camera: for people, never for the loss."""

    def __init__(self, latent: int, cameras: int, size: int) -> None:
        super().__init__()
        self.cameras, self.side = cameras, size // 16
        self.enter = nn.Linear(latent, 128 * self.side**2)
        channels = (128, 96, 64, 32)
        layers: list[nn.Module] = []
        for inputs, outputs in zip(channels, (*channels[1:], 3 * cameras), strict=True):
            layers += [nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(inputs, outputs, 3, 1, 1)]
        self.grow = nn.Sequential(*layers)

    def forward(self, latent: Float[Tensor, "B D"]) -> Float[Tensor, "B C 3 h w"]:
        x = self.enter(latent).view(-1, 128, self.side, self.side)
        return self.grow(x).unflatten(1, (self.cameras, 3))
