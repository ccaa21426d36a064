"""Perception, world model and planner in one process, one thread and one executor, sharing one loaded model. Never the guard."""

from __future__ import annotations

from functools import cache

from foresight.world_model import checkpoint
from foresight.world_model.model import WorldModel
from foresight_nodes.part import Part
from foresight_nodes.perception_node import PerceptionNode
from foresight_nodes.planner_node import PlannerNode
from foresight_nodes.world_model_node import WorldModelNode


def nodes(**options) -> list[Part]:
    """The three nodes, with the same names and topics as in processes of their own."""

    @cache
    def load_once(path: str, device: str) -> WorldModel:
        return checkpoint.load_for_planning(path, device)

    return [PerceptionNode(**options), WorldModelNode(load_once, **options), PlannerNode(load_once, **options)]
