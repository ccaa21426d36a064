"""Camera frames and joint states in, model-ready observations out, or a typed refusal."""

from foresight.perception.perception import Perception, PerceptionConfig, Refusal, RefusalReason
from foresight.perception.prepare import prepare

__all__ = ["Perception", "PerceptionConfig", "Refusal", "RefusalReason", "prepare"]
