"""Observation in, belief out: encodes, remembers, and says how surprised the model is."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from foresight_msgs.msg import Observation as ObservationMsg

from foresight.data import Belief, Observation
from foresight.world_model import checkpoint
from foresight.world_model.belief import BeliefFilter
from foresight.world_model.model import WorldModel
from foresight_nodes import convert, topics
from foresight_nodes.diagnostics import Durations, Rate
from foresight_nodes.models import LoadModel, blank_observation, load_for
from foresight_nodes.part import Part
from foresight_nodes.real_time import check_priority


@dataclass(frozen=True)
class WorldModelParameters:
    """Parameters of the world_model node."""

    checkpoint: str  # folder of the model
    robot: str  # robot profile by name, or path of its YAML file
    device: str = "cpu"  # where the model runs: cpu, cuda, cuda:1 ... or onnx (ONNX Runtime, after `foresight export`)
    threads: int = 0  # torch threads; 0: as torch decides
    real_time_priority: int = 20  # SCHED_FIFO priority of the process once it is active, where allowed; 0: do not ask

    def __post_init__(self) -> None:
        check_priority(self.real_time_priority)


class WorldModelNode(Part[WorldModelParameters]):
    """Observation -> Belief."""

    def __init__(self, load: LoadModel = checkpoint.load, **options) -> None:
        super().__init__("world_model", WorldModelParameters, **options)
        self._load = load
        self._beliefs, self._durations, self._surprise = Rate(self.now_s()), Durations(), float("nan")
        self._model: WorldModel | None = None

    def configure(self, parameters: WorldModelParameters) -> None:
        self._model, profile = load_for(
            parameters.robot, parameters.checkpoint, parameters.device, parameters.threads, self._load
        )
        for _ in range(2):
            BeliefFilter(self._model).update(blank_observation(self._model, profile))
        self._base_frame, self._device = profile.base_frame, parameters.device
        self._output = topics.BELIEF.publisher(self)
        topics.OBSERVATION.subscription(self, self._on_observation)
        self._oom_next, self._wrong_until_s = False, 0.0
        self.offer_faults({"gpu_oom": self._inject_oom, "wrong_model": self._inject_wrong_model})

    def activate(self) -> None:
        self._filter = BeliefFilter(self._model)
        self._beliefs, self._durations = Rate(self.now_s()), Durations()

    def release(self) -> None:
        self._model = None

    def report(self) -> dict[str, object]:
        return {
            "model_id": self._model.model_id if self._model else "",
            "belief_hz": self._beliefs.hz(self.now_s()),
            "surprise": self._surprise,
            "encode_ms_p50": self._durations.percentile_ms(50),
            "encode_ms_p99": self._durations.percentile_ms(99),
        }

    def _on_observation(self, msg: ObservationMsg) -> None:
        if not self.active:
            return
        begin_s = time.perf_counter()
        try:
            belief = self._update(convert.observation_from_msg(msg, self._model.contract))
        except ValueError as error:
            self.complain(str(error))
            return
        except torch.OutOfMemoryError as error:  # the next observation may fit again; the filter is unchanged
            torch.cuda.empty_cache()
            self.complain(f"Out of memory on {self._device}; this observation is dropped. {' '.join(str(error).split())}")
            return
        except RuntimeError as error:  # the device is gone: without beliefs the guard brings the arm to rest
            self.complain(f"The model failed on {self._device}; this observation is dropped. {' '.join(str(error).split())}")
            return
        self.publish(self._output, convert.belief_to_msg(belief, self._base_frame))
        self._surprise = belief.surprise
        self._beliefs.tick()
        self._durations.add(time.perf_counter() - begin_s)

    def _update(self, observation: Observation) -> Belief:
        if self._oom_next:
            self._oom_next = False
            raise torch.OutOfMemoryError("Injected.")
        belief = self._filter.update(observation)
        wrong = time.monotonic() < self._wrong_until_s
        return replace(belief, model_id=f"not-{belief.model_id}") if wrong else belief

    def _inject_oom(self, _: float) -> str:
        self._oom_next = True
        return "gpu_oom: the next inference runs out of memory."

    def _inject_wrong_model(self, duration_s: float) -> str:
        duration_s = duration_s or 2.0
        self._wrong_until_s = time.monotonic() + duration_s
        return f"wrong_model for {duration_s:g} s: beliefs carry another model's fingerprint."
