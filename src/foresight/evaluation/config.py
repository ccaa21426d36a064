"""What to evaluate. The command line's flags derive from this; the in-process and the ROS runner both read it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from foresight.planning.config import PlannerConfig
from foresight.planning.search import Method

TaskName = Literal["reach", "push", "push_object_goal", "push_far", "push_among", "pick", "clutter"]
GRIPPING = ("pick", "clutter")  # the gripper starts open, and the cube must have been lifted on its way
NO_GRIPPER = "the model's actions move the tip and leave the gripper as it is"
AMONG = ("push_among", "clutter")  # two other objects lie beside the cube
ShiftName = Literal[
    "none", "colour", "camera",
    "table", "floor", "cube", "arm", "light", "cameras", "family",  # drawn as the shipped model's training drew them
    "shadows", "textures", "distractors", "camera_8cm", "cube_size", "cube_mass", "friction", "noise", "latency",  # beyond it
]  # fmt: skip
THROUGH_ROS = ("none", "colour", "camera")  # shifts that the simulator's node knows
SuiteName = Literal["clean", "far", "objects", "shift"]
KeepOutName = Literal["none", "told", "untold"]
DeviceName = Literal["cpu", "onnx"]
PolicyName = Literal["actor", "search", "both", "reactive", "dreamt", "random", "expert"]


def check_gripping(tasks: Iterable[TaskName], moves_gripper: Callable[[], bool]) -> None:
    """Raises ValueError where a task is to be done with the gripper, and whoever does it does not move it."""
    gripping = [task for task in tasks if task in GRIPPING]
    if gripping and not moves_gripper():
        raise ValueError(
            f"--task {gripping[0]} needs a model that moves the gripper: {NO_GRIPPER}. Give --checkpoint one from data of "
            "`foresight collect --task mixed`, or in process --policy expert."
        )


@dataclass(frozen=True)
class EvaluateConfig:
    """Runs episodes on held-out seeds and counts what the judge saw.

    Goals are given as images only: the scene as wanted (reach, push), or the object as wanted with the arm elsewhere
    (push_object_goal). With --suite the scenes are those of a frozen list in sim/manifests, each compared with its hash.
    """

    task: tuple[TaskName, ...] = ("reach", "push")
    """One or more tasks: reach (tip within 2 cm), push (cube 8-15 cm, to within 3 cm), push_object_goal (goal shows the arm
    elsewhere), push_far (16-28 cm), push_among (two other objects beside the cube); with a model that moves the gripper, or with
    --policy expert, also pick (and place), clutter (pick one of three)."""
    suite: SuiteName | None = None
    """A frozen list of scenes instead of --task, --shift and --seed: clean, far, objects (pushing among others, picking,
    picking among others), or shift (each factor alone); the rows that the policy has no gripper for are named and left out."""
    rows: tuple[str, ...] = ()
    """Only these rows of the suite, by name (e.g. "push, table"); by default all."""
    episodes: int | None = None
    """Number of episodes of each task; by default 200, with --suite all scenes of each row."""
    seed: int = 100
    """Held-out scenes start at seed * 100000 (0 to 9999); collection never draws from there."""
    policy: PolicyName = "both"
    """Who chooses: actor alone, search alone, both (the planner as shipped), reactive (the actor's first block, nothing imagined:
    all that a model without dynamics can do), dreamt (the actor that learned in imagination alone), random motion, or the
    scripted expert that sees true states: what the judge gives to one who knows everything."""
    shift: ShiftName = "none"
    """What differs from the nominal scene: colour (the table's) and camera (3 cm) as ever; table to family as in the shipped
    model's training, shadows to latency beyond it."""
    keep_out: KeepOutName = "none"
    """A keep-out box on the straight way of tip or cube to the goal that the planner is told of, or is not."""
    random_episodes: int | None = None
    """Episodes of the random floor for each task, on the same seeds; by default the number of episodes, at most 50."""
    checkpoint: Path = Path("models/ur5e")
    """Folder of the checkpoint; the default is the one shipped."""
    robot: str = "ur5e"
    """Name of a shipped robot profile, or the path of its YAML file."""
    json: Path | None = None
    """Where to write the summary (report.json's content)."""
    report: Path | None = None
    """Folder for report.html, report.json, episodes.json and videos."""
    beside: tuple[Path, ...] = ()
    """Folders of other models' reports on the same suite; with --report, the page draws success against training episodes."""
    videos: int = 5
    """Videos of successful episodes kept for each task, with --report; every failure is kept."""
    jobs: int = 2
    """Processes, one thread each; in-process only."""
    latency_ms: float = 0.0
    """Injected between an observation and the motion that it leads to [ms], from 0 to below 250; in-process only."""
    compensate: bool = True
    """Plan from where the arm will be after the latency; without, from where it was seen; in-process only."""
    device: DeviceName = "cpu"
    """Where the model runs: cpu (torch), or onnx (ONNX Runtime, from the files of `foresight export`); in-process only."""
    guard: bool = True
    """Without it whatever was planned is sent to the simulated arm, to measure what the guard costs; in-process only."""
    method: Method | None = None
    """How policy `search` searches, or `both` refines what the actor proposes; by default as shipped; in-process only."""
    samples: int | None = None
    """Candidates of a round of that search; by default as shipped; in-process only."""
    iterations: int | None = None
    """Rounds of that search; by default as shipped; in-process only."""
    subgoals: bool = True
    """Pursue sub-goals on the way to a goal that is far, where the model proposes them; in-process only."""
    ros: bool = False
    """Through the ROS graph: separate processes, real time, planning delay included."""

    def __post_init__(self) -> None:
        if not self.task:
            raise ValueError("--task needs at least one of reach, push, push_object_goal.")
        if len(set(self.task)) < len(self.task):
            raise ValueError(f"--task names a task twice: {' '.join(self.task)}. Name each once; its scenes count once.")
        if self.beside and not (self.report and self.suite):
            raise ValueError("--beside compares pages of one suite. Give --suite and --report, or leave --beside out.")
        if self.suite is None and self.rows:
            raise ValueError("--rows picks rows of a suite. Give --suite, or leave --rows out.")
        if self.suite is not None:
            set_by_it = {"--task": self.task != ("reach", "push"), "--shift": self.shift != "none", "--seed": self.seed != 100}
            set_by_it |= {"--keep-out": self.keep_out != "none", "--ros": self.ros}
            wrong = [flag for flag, given in set_by_it.items() if given]
            if wrong:
                raise ValueError(f"A suite fixes its scenes and runs in process. Leave {', '.join(wrong)} or --suite out.")
        elif self.episodes is None:
            object.__setattr__(self, "episodes", 200)
        if self.ros and self.policy == "expert":
            raise ValueError("--policy expert is for runs in process. Leave --ros or --policy out.")
        if self.ros and self.shift not in THROUGH_ROS:
            raise ValueError(f"--shift {self.shift} is for runs in process; through ROS there are {', '.join(THROUGH_ROS)}.")
        if self.ros and not self.guard:
            raise ValueError("--no-guard is for runs in process; through ROS the guard is always there. Leave one out.")
        if self.ros and not self.subgoals:
            raise ValueError("--no-subgoals is for runs in process; nodes have the parameter `planner.subgoals`. Leave one out.")
        if self.searching and (self.ros or self.policy not in ("both", "search")):
            raise ValueError(
                "--method, --samples and --iterations are for --policy both or search, in process; nodes have the parameters "
                "`planner.refine_method`, `planner.samples` and so on. Leave them out."
            )
        if not 0 <= self.latency_ms < 250:
            raise ValueError(
                f"--latency-ms must be at least 0 and below 250, which is where the guard refuses, got {self.latency_ms}."
            )
        if self.ros and self.device != "cpu":
            raise ValueError("--device is for runs in process; nodes have the parameter `device`. Leave --ros or --device out.")
        if self.ros and (self.latency_ms or not self.compensate):
            raise ValueError(
                "--latency-ms and --no-compensate are for runs in process; through ROS the latency is what it is. Leave them out."
            )
        for name, low, high in (
            ("episodes", 1, 100_000),
            ("seed", 0, 9_999),
            ("jobs", 1, 256),
            ("videos", 0, 100_000),
            ("samples", PlannerConfig.elites, 100_000),  # the search keeps so many
            ("iterations", int(self.policy == "search"), 10_000),
            ("random_episodes", 0, 100_000),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"--{name.replace('_', '-')} must lie between {low} and {high}, got {value}.")

    @property
    def random_floor(self) -> int:
        """Episodes of the random policy to run for each task."""
        if self.policy == "random":
            return 0
        wanted = 50 if self.random_episodes is None else self.random_episodes
        return wanted if self.episodes is None else min(self.episodes, wanted)

    def episode_seed(self, index: int) -> int:
        """The scene of episode `index`: held out, since collection draws its scenes from a thousand million on."""
        return self.seed * 100_000 + index

    @property
    def searching(self) -> dict[str, str | int]:
        """What the search does otherwise than as shipped: `method`, `samples`, `iterations`."""
        chosen = {name: getattr(self, name) for name in ("method", "samples", "iterations")}
        return {name: value for name, value in chosen.items() if value is not None}

    def to_arguments(self) -> list[str]:
        """The command-line words that give this configuration again."""
        words: list[str] = []
        for field in fields(self):
            value, flag = getattr(self, field.name), "--" + field.name.replace("_", "-")
            if isinstance(value, bool):
                words += [] if value == field.default else [flag if value else flag.replace("--", "--no-", 1)]
            elif isinstance(value, tuple):
                words += [flag, *map(str, value)] if value else []
            elif value is not None:
                words += [flag, str(value)]
        return words


@dataclass(frozen=True)
class ExplainConfig:
    """Which plan of which run to explain."""

    run: Path
    """Folder of a run in process, as `foresight evaluate --report` writes it."""
    episode: int = 0
    """Which episode, counted from 0 in the order of episodes.json."""
    step: int = 0
    """Which step of it, counted from 0, ten a second."""
    out: Path | None = None
    """The picture (.png); by default explain_<episode>_<step>.png in the run's folder."""
    checkpoint: Path = Path("models/ur5e")
    """Folder of the run's checkpoint; the default is the one shipped."""
    robot: str = "ur5e"
    """Name of a shipped robot profile, or the path of its YAML file."""
