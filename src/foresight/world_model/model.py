"""The world model: images and proprioception in, latents out; imagines, proposes, judges. Knows no planner and no robot.

It is trained by `foresight.training` and satisfies `Dynamics`, `Actor` and `Critic` of `interfaces.py`. All arguments
are in physical units (m, rad, m/s); normalisation happens inside, with the statistics that lie in the checkpoint.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from foresight.contract import Contract
from foresight.data import Goal, Observation
from foresight.world_model.encoders import FoundationEncoder, VisionEncoder, load_foundation
from foresight.world_model.networks import CameraEncoder, Decoder, Encoder, Predictor, mlp, normalise_images
from foresight.world_model.transformer import TransformerConfig

SYMMETRY = 4  # quarter turns bring a cube onto itself


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the networks."""

    imagined_blocks: ClassVar[int] = 3  # that training looks ahead in imagination

    latent: int = 128  # numbers in a latent
    encoder_width: int = 64  # channels of the first convolution
    predictor_width: int = 256
    predictor_depth: int = 3
    head_width: int = 384  # of actor and critic
    max_blocks: int = 16  # the critic's farthest distance [blocks]
    encoder: Literal["residual", "vit", "foundation"] = "residual"  # small networks for CPUs, a ViT, a frozen pretrained model
    encoder_depth: int = 12  # layers of the ViT, which is encoder_width wide
    encoder_heads: int = 3  # of the ViT
    patch: int = 8  # [px] side of the ViT's patches
    foundation: str = "facebook/dinov2-small"  # the frozen model: a folder, or a name on the Hugging Face hub (DINOv2, V-JEPA 2)
    foundation_size: int = 224  # [px] that images are enlarged to for DINOv2; V-JEPA 2 has its own size
    predictor_dropout: float = 0.0  # share of the predictor's numbers left out while it learns
    spare_cameras: bool = False  # learns to do without cameras that are lost, as long as one is seen
    critics: int = 1  # that learn apart; their mean counts, and with several how far they differ tells how little is known
    yaw: bool = False  # a readout of the object's orientation about the vertical too
    contact: bool = False  # a readout of whether the hand touches the object
    modes: int = 1  # motions that the actor proposes at once, for there may be several ways to a goal
    subgoals: int = 0  # ways on which sub-goals are proposed for goals that are far; 0: none
    subgoal_blocks: int = 5  # how far ahead a sub-goal lies [blocks]
    dynamics: bool = True  # a predictor; without it encoder and actor learn by behaviour cloning, and the model only reacts
    dreamt: bool = False  # a second actor and critic, which learn from what the model imagines

    def __post_init__(self) -> None:
        for name, value in self.__dict__.items():
            least = 0 if name == "subgoals" else 1
            if type(value) is int and not least <= value <= 10_000:
                raise ValueError(f"{name} must be at least {least} and at most 10000, got {value}.")
        if not 0 <= self.predictor_dropout < 1:
            raise ValueError(f"predictor_dropout must be at least 0 and below 1, got {self.predictor_dropout}.")
        if self.encoder not in ("residual", "vit", "foundation"):
            raise ValueError(f"encoder must be residual, vit or foundation, got {self.encoder}.")
        if self.dreamt and not self.dynamics:
            raise ValueError("A model without dynamics imagines nothing. Leave out --model.dreamt or --model.no-dynamics.")


class WorldModel(nn.Module):
    """Encoder, predictor, actor, critic, readouts and a decoder for people, with everything needed to run them."""

    model_id: str = "unsaved"
    _known: tuple[Goal, tuple[Tensor, ...]] | None = None  # a goal and its tensors, of a model that is `towards` it

    def __init__(self, contract: Contract, config: ModelConfig = ModelConfig(), foundation: dict | None = None) -> None:
        """`foundation` describes a frozen pretrained model whose weights come later; None: they are fetched if needed."""
        super().__init__()
        self.contract, self.config = contract, config
        cameras, size = len(contract.cameras), contract.cameras[0].size
        if any(c.size != size for c in contract.cameras):
            raise ValueError(f"All cameras must be prepared to one size, got {[c.size for c in contract.cameras]}.")
        latent, proprio, block = config.latent, contract.proprio_size, contract.block_size
        self.encoder = self._make_encoder(cameras, size, foundation)
        self.predictor = (
            Predictor(latent, proprio, block, config.predictor_width, config.predictor_depth, config.predictor_dropout)
            if config.dynamics
            else None
        )
        self.readout = mlp(latent, 256, 6, depth=2)  # tip and object position
        features = 2 * latent + 6 + proprio + (latent + 6) + 3 + 3 + 3
        modes = config.modes  # motions, and with several their log odds
        self.actor = mlp(features + 1, config.head_width, modes * block + modes * (modes > 1))
        self.critic = mlp(features, config.head_width, config.max_blocks + 1)
        self.decoder = Decoder(latent, cameras, size)
        self.other_critics = nn.ModuleList(
            mlp(features, config.head_width, config.max_blocks + 1) for _ in range(config.critics - 1)
        )
        self.yaw_readout = mlp(latent, 256, 2, depth=2) if config.yaw else None  # cosine and sine of SYMMETRY times the yaw
        self.contact_readout = mlp(latent, 256, 1, depth=2) if config.contact else None  # log odds
        ways = config.subgoals
        self.subgoal_head = mlp(features + 1, config.head_width, ways * (latent + proprio)) if ways else None
        self.dreamt = nn.ModuleList()  # actor and critic that learned in imagination
        if config.dreamt:
            self.dreamt.append(mlp(features + 1, config.head_width, block))
            self.dreamt.append(mlp(features, config.head_width, config.max_blocks + 1))
        self.register_buffer("proprio_mean", torch.zeros(proprio))
        self.register_buffer("proprio_std", torch.ones(proprio))
        self.register_buffer("action_std", torch.ones(block))
        self.register_buffer("position_mean", torch.zeros(3))
        self.register_buffer("position_std", torch.ones(3))
        self.register_buffer("surprise_scale", torch.ones(()))  # mean one-block error on held-out episodes

    def _make_encoder(self, cameras: int, size: int, foundation: dict | None) -> CameraEncoder:
        config = self.config
        if config.encoder == "residual":
            return Encoder(cameras, size, config.encoder_width, config.latent, config.spare_cameras)
        if config.encoder == "vit":
            sizes = TransformerConfig(
                latent=config.encoder_width,
                image=size,
                patch=config.patch,
                encoder_depth=config.encoder_depth,
                encoder_heads=config.encoder_heads,
                encoder_hidden=4 * config.encoder_width,
            )
            return VisionEncoder(cameras, sizes, config.latent, config.spare_cameras)
        frozen = load_foundation(config.foundation, foundation)
        return FoundationEncoder(cameras, frozen, config.foundation_size, config.latent, config.spare_cameras)

    # -- encoding ---------------------------------------------------------------------------------------------

    def encode(self, images: UInt8[Tensor, "B C h w 3"], seen: Bool[Tensor, "B C"] | None = None) -> Float[Tensor, "B D"]:
        """Latents; `seen` tells which cameras are there, None: all."""
        return self.encoder(normalise_images(images), seen)

    @torch.no_grad()
    def encode_images(self, images: UInt8[np.ndarray, "C h w 3"], seen: tuple[bool, ...] | None = None) -> Float[np.ndarray, "D"]:
        """One latent from one set of prepared images; what the images of cameras that are not `seen` show does not matter.

        Raises ValueError where none is seen, or where the model was not trained to do without a camera.
        """
        expected = (len(self.contract.cameras), self.contract.cameras[0].size, self.contract.cameras[0].size, 3)
        if images.shape != expected or images.dtype != np.uint8:
            raise ValueError(f"Prepared images must be uint8 of shape {expected}, got {images.dtype} of shape {images.shape}.")
        there = None
        if seen is not None and not all(seen):
            lost = [c.name for c, s in zip(self.contract.cameras, seen, strict=True) if not s]
            if not any(seen) or not self.config.spare_cameras:
                needs = (
                    "at least one camera" if self.config.spare_cameras else "all; one trained with --model.spare-cameras does not"
                )
                raise ValueError(f"Cameras {', '.join(lost)} are lost. This model needs {needs}.")
            images = np.where(np.array(seen)[:, None, None, None], images, np.uint8(0))
            there = torch.tensor([seen], device=self.device)
        return self.encode(torch.from_numpy(images)[None].to(self.device), there)[0].float().cpu().numpy()

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "N D"]) -> UInt8[np.ndarray, "N C h w 3"]:
        """Rough pictures of latents, for people."""
        pictures = (self.decoder(torch.as_tensor(latents, dtype=torch.float32, device=self.device)) + 1) * 127.5
        return pictures.clamp(0, 255).byte().movedim(2, -1).cpu().numpy()

    @property
    def foundation(self) -> dict | None:
        """What describes the frozen pretrained model inside, where there is one."""
        return self.encoder.frozen.config.to_dict() if isinstance(self.encoder, FoundationEncoder) else None

    @property
    def device(self) -> torch.device:
        return self.proprio_mean.device

    # -- Dynamics ---------------------------------------------------------------------------------------------

    @property
    def foresees(self) -> bool:
        """Whether it has dynamics; one that learned by behaviour cloning has none."""
        return self.config.dynamics

    def imagine(
        self, latent: Float[Tensor, "S D"], proprio: Float[Tensor, "S P"], block: Float[Tensor, "S A"]
    ) -> tuple[Float[Tensor, "S D"], Float[Tensor, "S P"]]:
        """Raises ValueError for a model without dynamics."""
        if self.predictor is None:
            raise ValueError("This model has no dynamics, so it imagines nothing. Train one without --model.no-dynamics.")
        latent, scaled = self.predictor(latent, self.scale_proprio(proprio), block / self.action_std)
        return latent, scaled * self.proprio_std + self.proprio_mean

    def scale_proprio(self, proprio: Float[Tensor, "*n P"]) -> Float[Tensor, "*n P"]:
        return (proprio - self.proprio_mean) / self.proprio_std

    # -- Actor, Critic, readouts --------------------------------------------------------------------------------

    def propose(
        self, latent: Float[Tensor, "S D"], proprio: Float[Tensor, "S P"], goal: Goal, k: Float[Tensor, "S"]
    ) -> Float[Tensor, "S A"]:
        features = self.features(latent, proprio, *self.goal_tensors(goal))
        return self.act(features, k)

    def act(self, features: Float[Tensor, "S G"], k: Float[Tensor, "S"]) -> Float[Tensor, "S A"]:
        """The actor on features that `features` made, its likeliest motion where it has several; `k` in blocks."""
        motions, odds = self.act_each(features, k)
        if self.modes == 1:
            return motions[:, 0]
        return motions[torch.arange(len(motions), device=motions.device), odds.argmax(-1)]

    def act_each(
        self, features: Float[Tensor, "S G"], k: Float[Tensor, "S"]
    ) -> tuple[Float[Tensor, "S M A"], Float[Tensor, "S N"]]:
        """Every motion of the actor and, where it has several, their log odds."""
        motions, odds = self.actor(self._with_aim(features, k)).tensor_split([self.modes * self.contract.block_size], -1)
        return motions.unflatten(-1, (self.modes, -1)) * self.action_std, odds

    def _with_aim(self, features: Float[Tensor, "S G"], k: Float[Tensor, "S"]) -> Float[Tensor, "S N"]:
        return torch.cat([features, k.unsqueeze(-1) / self.config.max_blocks], -1)

    @property
    def modes(self) -> int:
        return self.config.modes

    def propose_each(
        self, latent: Float[Tensor, "S D"], proprio: Float[Tensor, "S P"], goal: Goal, k: Float[Tensor, "S"]
    ) -> Float[Tensor, "S M A"]:
        return self.act_each(self.features(latent, proprio, *self.goal_tensors(goal)), k)[0]

    def blocks_to_go(self, latent: Float[Tensor, "S D"], proprio: Float[Tensor, "S P"], goal: Goal) -> Float[Tensor, "S"]:
        return self._to_go(latent, proprio, goal).mean(0)

    def _to_go(self, latent: Float[Tensor, "S D"], proprio: Float[Tensor, "S P"], goal: Goal) -> Float[Tensor, "M S"]:
        """Blocks still to go as each critic expects them, by the weights of the goal's parts."""
        *places, given, reads = self.goal_tensors(goal)
        if len(goal.levels) == 1:
            return self.expected(self.logits(self.features(latent, proprio, *places, given, reads)))
        by_level = []
        for share, parts in goal.levels:
            wanted = given.new_tensor([parts], dtype=given.dtype)
            by_level.append(share * self.expected(self.logits(self.features(latent, proprio, *places, wanted, reads))))
        return torch.stack(by_level).sum(0)

    @property
    def critics(self) -> int:
        return self.config.critics

    def judge(self, features: Float[Tensor, "S G"]) -> Float[Tensor, "S"]:
        """Expected distance [blocks], the mean of all critics."""
        return self.expected(self.logits(features)).mean(0)

    def logits(self, features: Float[Tensor, "S G"]) -> Float[Tensor, "M S N"]:
        """Each critic's categorical distribution over distances in whole blocks."""
        return torch.stack([critic(features) for critic in (self.critic, *self.other_critics)])

    def expected(self, logits: Float[Tensor, "*n N"]) -> Float[Tensor, "*n"]:
        """The distance [blocks] that a distribution expects."""
        probability = logits.float().softmax(-1)
        return probability @ torch.arange(probability.shape[-1], dtype=torch.float32, device=probability.device)

    def spread(self, latent: Float[Tensor, "S D"], proprio: Float[Tensor, "S P"], goal: Goal) -> Float[Tensor, "S"]:
        """Standard deviation [blocks] of what the critics expect. Raises ValueError for a model with one."""
        if self.critics == 1:
            raise ValueError("This model has one critic, which cannot differ from others. Train one with --model.critics 3.")
        return self._to_go(latent, proprio, goal).std(0)

    def dreaming(self) -> WorldModel:
        """The same model with the actor and critic that learned in imagination in the places of the others.

        Raises ValueError for a model without them.
        """
        if not self.dreamt:
            raise ValueError("This model has no actor and critic that learned in imagination. Train one with --model.dreamt.")
        model = copy.copy(self)
        model._modules = dict(self._modules)  # the networks themselves are shared, their places are not
        model.actor, model.critic = self.dreamt
        model.other_critics, model.config = nn.ModuleList(), replace(self.config, critics=1, modes=1)
        return model

    # -- Subgoals -----------------------------------------------------------------------------------------------

    @property
    def subgoal_ways(self) -> int:
        return self.config.subgoals

    def subgoals(
        self, latent: Float[Tensor, "S D"], proprio: Float[Tensor, "S P"], goal: Goal, k: Float[Tensor, "S"]
    ) -> tuple[Float[Tensor, "S W D"], Float[Tensor, "S W P"]]:
        """Raises ValueError for a model that proposes none."""
        if self.subgoal_head is None:
            raise ValueError("This model proposes no sub-goals. Train one with --model.subgoals 4.")
        changes = self.propose_changes(self.features(latent, proprio, *self.goal_tensors(goal)), k)
        ahead, joints = changes.split([self.config.latent, self.contract.proprio_size], -1)
        return latent[:, None] + ahead, proprio[:, None] + joints * self.proprio_std

    def propose_changes(self, features: Float[Tensor, "S G"], k: Float[Tensor, "S"]) -> Float[Tensor, "S W N"]:
        """What changes until each way's sub-goal: the latent, then proprioception in standard deviations."""
        return self.subgoal_head(self._with_aim(features, k)).unflatten(-1, (self.subgoal_ways, -1))

    def apart(
        self, latent: Float[Tensor, "S D"], proprio: Float[Tensor, "S P"], other: Float[Tensor, "S D"]
    ) -> Float[Tensor, "S"]:
        nowhere = torch.zeros(1, 3, device=self.device)
        given = torch.tensor([[1.0, 0.0, 0.0]], device=self.device)
        return self.judge(self.features(latent, proprio, other, nowhere, nowhere, given))

    # -- readouts -----------------------------------------------------------------------------------------------

    def read(self, latent: Float[Tensor, "*n D"]) -> tuple[Float[Tensor, "*n 3"], Float[Tensor, "*n 3"]]:
        """Tip and object position [m] as the latent shows them."""
        both = self.readout(latent).unflatten(-1, (2, 3)) * self.position_std + self.position_mean
        return both[..., 0, :], both[..., 1, :]

    def read_yaw(self, latent: Float[Tensor, "*n D"]) -> Float[Tensor, "*n"]:
        """The object's orientation about the vertical [rad], within a turn that brings a cube onto itself: +-pi/4.

        Raises ValueError for a model without that readout.
        """
        if self.yaw_readout is None:
            raise ValueError("This model does not read the object's orientation. Train one with --model.yaw.")
        cosine, sine = self.yaw_readout(latent).unbind(-1)
        return torch.atan2(sine, cosine) / SYMMETRY

    @property
    def reads(self) -> frozenset[str]:
        there = {"yaw": self.config.yaw, "opening": self.contract.moves_gripper, "contact": self.config.contact}
        return frozenset(name for name, reads in there.items() if reads)

    def read_opening(self, proprio: Float[Tensor, "*n P"]) -> Float[Tensor, "*n"]:
        """Raises ValueError for a model that does not move the gripper, and so is not told."""
        if not self.contract.moves_gripper:
            raise ValueError("This model is not told how far the gripper is open. Train one on `foresight collect --task mixed`.")
        return proprio[..., -7]

    def read_contact(self, latent: Float[Tensor, "*n D"]) -> Float[Tensor, "*n"]:
        """Raises ValueError for a model without that readout."""
        if self.contact_readout is None:
            raise ValueError("This model does not read whether the hand touches the object. Train one with --model.contact.")
        return self.contact_readout(latent)[..., 0].sigmoid()

    def towards(self, goal: Goal) -> WorldModel:
        """The same model with what it makes of this goal worked out once. For one plan: neither may change meanwhile."""
        model = copy.copy(self)
        model._known = (goal, self.goal_tensors(goal))
        return model

    def goal_tensors(self, goal: Goal) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Latent, tip, object (zeros where they do not matter), which of them do, and the latent's readouts: batches of one."""
        if self._known is not None and self._known[0] is goal:
            return self._known[1]
        parts = (goal.latent, goal.tip, goal.object)
        sizes = (self.config.latent, 3, 3)
        tensors = [
            torch.zeros(1, n, device=self.device)
            if p is None
            else torch.as_tensor(np.asarray(p), dtype=torch.float32, device=self.device)[None]
            for p, n in zip(parts, sizes, strict=True)
        ]
        given = torch.tensor(
            [[float(p is not None and w > 0) for p, w in zip(parts, goal.weights, strict=True)]], device=self.device
        )
        return *tensors, given, torch.cat(self.read(tensors[0]), -1)

    def features(
        self,
        latent: Float[Tensor, "S D"],
        proprio: Float[Tensor, "S P"],
        goal_latent: Float[Tensor, "#S D"],
        goal_tip: Float[Tensor, "#S 3"],
        goal_object: Float[Tensor, "#S 3"],
        given: Float[Tensor, "#S 3"],
        goal_reads: Float[Tensor, "#S 6"] | None = None,
    ) -> Float[Tensor, "S G"]:
        """What actor and critic see: the latent, its readouts, proprioception, and the way to each given part of the goal.

        `goal_reads` is tip and object [m] as the goal's latent shows them; None: they are read here.
        """
        n, scale = len(latent), self.position_std / 4  # a quarter of the workspace's spread is about a push
        tip, obj = self.read(latent)
        if goal_reads is None:
            goal_reads = torch.cat(self.read(goal_latent), -1)  # one goal is read once
        goal_latent, goal_tip, goal_object, given = (x.expand(n, -1) for x in (goal_latent, goal_tip, goal_object, given))
        image, point, thing = given.split(1, -1)
        here = torch.stack([tip, obj], -2)
        way = image.unsqueeze(-1) * (goal_reads.unflatten(-1, (2, 3)) - here) / scale
        return torch.cat(
            [
                latent,
                image * goal_latent,
                ((here - self.position_mean) / self.position_std).flatten(-2),
                self.scale_proprio(proprio),
                image * (goal_latent - latent),
                way.flatten(-2),
                point * (goal_tip - proprio[..., -6:-3]) / scale,
                thing * (goal_object - obj) / scale,
                given,
            ],
            -1,
        )


def proprio_of(observation: Observation, contract: Contract) -> Float[np.ndarray, "P"]:
    """The proprioception vector of an observation, SI units: q, opening where actions move the gripper, tip, tip velocity.

    Raises ValueError where the opening is needed and not told.
    """
    if not contract.moves_gripper:
        return np.concatenate([observation.q, observation.tip, observation.tip_velocity]).astype(np.float32)
    if observation.opening is None:
        raise ValueError("The model moves the gripper, and the observation does not tell how far it is open.")
    opening = np.array([observation.opening])
    return np.concatenate([observation.q, opening, observation.tip, observation.tip_velocity]).astype(np.float32)
