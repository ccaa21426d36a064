"""Frozen lists of scenes that success rates are counted on: which seeds, where each scene starts and should end, and its hash.

    python -m sim.suites     # writes sim/manifests/*.json anew; figures from before then no longer compare

Every scene is made from its seed again and compared with its entry before anything runs. Collection draws its scenes from other
seeds (`sim.collect.SEED_SPACE` and on). Knows no physics and no model.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from foresight.files import write_atomically
from sim import tasks
from sim.scenes import CUBE_HALF
from sim.tasks import Setting, scene_of
from sim.variation import INSIDE, OUTSIDE, Variation

FOLDER = Path(__file__).resolve().parent / "manifests"
FIRST_SEED = 990_000_000  # of the first task; each has 100,000 of its own
BODILY = ("cube_size", "cube_mass", "friction")  # shifts that a reach does not feel
SUITES: dict[str, list[tuple[str, str, int]]] = {  # rows: task, shift, scenes
    "clean": [("reach", "none", 300), ("push", "none", 300), ("push_object_goal", "none", 300)],
    "far": [("push_far", "none", 300)],
    "objects": [("push_among", "none", 300), ("pick", "none", 300), ("clutter", "none", 300)],
    "shift": [
        (task, shift, 100)
        for task in ("reach", "push")
        for shift in ("none", *INSIDE, *OUTSIDE)
        if task == "push" or shift not in BODILY
    ],
}


class ManifestError(ValueError):
    """The manifest is damaged, or is not what the code makes; the message says which, and what to do."""


@dataclass(frozen=True)
class Entry:
    """One scene of a row."""

    row: str
    task: str
    shift: str
    seed: int
    hash: str


@dataclass(frozen=True)
class Suite:
    name: str
    fingerprint: str  # twelve hexadecimal digits that name the manifest's content
    rows: dict[str, tuple[Entry, ...]]


def scene_hash(setting: Setting, variation: Variation) -> str:
    """Ten hexadecimal digits that name a scene: positions, looks, bodies, all to a millionth."""
    return hashlib.sha256(json.dumps(_plain([setting, variation])).encode()).hexdigest()[:10]


def rules() -> dict:
    """What counts as success; stored in each manifest, for a rate says nothing without it."""
    return {
        "reach_tolerance_m": tasks.REACH_TOLERANCE_M,
        "push_tolerance_m": tasks.PUSH_TOLERANCE_M,
        "rest_s": tasks.REST_S,
        "rest_speed_m_s": tasks.REST_SPEED_M_S,
        "lifted_m": tasks.LIFTED_M,
        "cube_half_m": CUBE_HALF,
        "time_limit_s": tasks.TIME_LIMIT_S,
    }


def row_name(task: str, shift: str) -> str:
    return task if shift == "none" else f"{task}, {shift}"


def make(name: str) -> dict:
    """The manifest's content. Scenes hold seed, start (tip, cube, yaw) and goal (tip, cube) in m and rad, for people to read."""
    rows, scenes = [], {}
    for task, shift, count in SUITES[name]:
        seeds = [FIRST_SEED + 100_000 * tasks.TASKS.index(task) + i for i in range(count)]
        made = [scene_of(task, seed, shift)[:2] for seed in seeds]
        scenes[task] = [[seed, *_ends(setting)] for seed, (setting, _) in zip(seeds, made, strict=True)]
        hashes = [scene_hash(*scene) for scene in made]
        rows.append({"name": row_name(task, shift), "task": task, "shift": shift, "hashes": hashes})
    return {"suite": name, "rules": rules(), "scenes": scenes, "rows": rows}


def load(name: str, folder: Path = FOLDER) -> Suite:
    """A suite whose every scene was made again and is the one of the manifest. Raises ManifestError where one is not."""
    path = folder / f"{name}.json"
    try:
        content = path.read_bytes()
        raw = json.loads(content)
        rows, scenes, asked = raw["rows"], raw["scenes"], raw["rules"]
        entries = [
            (Entry(row["name"], row["task"], row["shift"], scene[0], digest), scene)
            for row in rows
            for scene, digest in zip(scenes[row["task"]], row["hashes"], strict=True)
        ]
    except FileNotFoundError:
        there = ", ".join(sorted(file.stem for file in folder.glob("*.json"))) or "none"
        raise ManifestError(f"Suite '{name}' has no manifest {path.name}. Available: {there}.") from None
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ManifestError(f"Manifest {path.name} is damaged ({' '.join(str(error).split())}). {_RESTORE}") from error
    if asked != (now := json.loads(json.dumps(rules()))):
        wrong = [f"{key}: {asked.get(key)} in the manifest, {now[key]} in the code" for key in now if asked.get(key) != now[key]]
        raise ManifestError(f"Manifest {path.name} counts success by other rules ({'; '.join(wrong)}). {_RESTORE}")
    found: dict[str, list[Entry]] = {}
    for index, (entry, scene) in enumerate(entries):
        setting, variation, _ = scene_of(entry.task, entry.seed, entry.shift)
        digest = scene_hash(setting, variation)
        if digest != entry.hash or _ends(setting) != scene[1:]:
            raise ManifestError(
                f"Manifest {path.name}, entry {index} ({entry.row}, seed {entry.seed}): the scene made from its seed hashes to "
                f"{digest} and starts and ends at {_ends(setting)}, the manifest has {entry.hash} and {scene[1:]}. {_RESTORE}"
            )
        if not setting.unsolved():
            raise ManifestError(f"Manifest {path.name}, entry {index} ({entry.row}, seed {entry.seed}) is solved at its start.")
        found.setdefault(entry.row, []).append(entry)
    return Suite(name, hashlib.sha256(content).hexdigest()[:12], {row: tuple(own) for row, own in found.items()})


_RESTORE = (
    "Rates on other scenes do not compare: take the manifest and the code of one commit, or, where scenes were changed on "
    "purpose, write the manifests anew with `python -m sim.suites` and run everything again."
)


def _ends(setting: Setting) -> list[list[float]]:
    start = [*setting.tip, *setting.cube, setting.cube_yaw]
    return [[round(float(v), 3) + 0.0 for v in values] for values in (start, [*setting.goal_tip, *setting.goal_cube])]


def _plain(value: object) -> object:
    """As lists and strings, numbers to a millionth, so that another machine's last digit changes nothing."""
    if isinstance(value, str | bool):
        return value
    if isinstance(value, Setting | Variation):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {key: _plain(of) for key, of in value.items()}
    if isinstance(value, tuple | list | np.ndarray):
        return [_plain(of) for of in value]
    return f"{float(value) + 0.0:.6f}".replace("-0.000000", "0.000000")


def _text(manifest: dict) -> str:
    """JSON with one scene a line."""
    lines = json.dumps({**manifest, "scenes": {}}, indent=1).replace('"scenes": {}', '"scenes": {\n@\n }')
    scenes = ",\n".join(
        f'  "{task}": [\n   ' + ",\n   ".join(json.dumps(scene, separators=(",", ":")) for scene in of) + "\n  ]"
        for task, of in manifest["scenes"].items()
    )
    for row in manifest["rows"]:
        lines = lines.replace(json.dumps(row["hashes"], indent=1).replace("\n", "\n   "), json.dumps(row["hashes"]))
    return lines.replace("@", scenes) + "\n"


if __name__ == "__main__":
    for suite in SUITES:
        print(write_atomically(FOLDER / f"{suite}.json", _text(make(suite))))
