"""SROS2 policies of the whole graph, written from the table of `access.py` and the processes of `graph.py`.

    foresight security [name:=value ...] [--out policies.xml]      (or: python -m foresight_nodes.policies)

Arguments are those of `foresight up robot`: a namespace, other cameras or another controller need policies of their own. One
enclave is one process; `docs/security.md` says how to turn them on. Makes no keys and reads none.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as xml

from foresight_bringup.graph import SIM_SAYS, Arguments, Process, driver_says, enclave, graph

from foresight.command_line import InputError, check_file
from foresight.files import write_atomically
from foresight.robots.profile import load_profile
from foresight_nodes.access import CAMERAS, LAUNCHER, OPERATORS, Access, table

VERSION = "0.2.0"  # of SROS2's policy schema
# field of Access -> the policy's list, what is granted, and its entries
GRANTS = {
    "publishes": ("topics", "publish", "topic"),
    "subscribes": ("topics", "subscribe", "topic"),
    "serves": ("services", "reply", "service"),
    "requests": ("services", "request", "service"),
    "executes": ("actions", "execute", "action"),
    "calls": ("actions", "call", "action"),
}
# What names depend on.
ARGUMENTS = (
    "namespace", "robot", "controller_topic", "gripper_topic", "joint_states", "front_camera", "wrist_camera", *SIM_SAYS,
)  # fmt: skip
USAGE = f"""usage: foresight security [name:=value ...] [--out FILE]

Prints the SROS2 policies of the graph. Arguments, as for `foresight up robot`: {", ".join(ARGUMENTS)}."""
HEADER = """<?xml version="1.0" encoding="UTF-8"?>
<!-- Made by `foresight security`; do not edit. Everything that is not listed is denied. See docs/security.md. -->
"""


def processes(arguments: Arguments) -> dict[str, Process]:
    """Every process that some situation starts, by executable."""
    graphs = [
        graph("sim", Arguments(namespace=arguments.namespace, robot=arguments.robot)),
        graph("robot", replace(arguments, use_mock_hardware="true")),
        graph("robot", replace(arguments, use_composition="true")),
    ]
    return {process.executable: process for built in reversed(graphs) for process in reversed(built.processes)}


def grants(arguments: Arguments = Arguments()) -> dict[str, dict[str, Access]]:
    """Enclave -> node -> what it may do, with full names."""
    profile = load_profile(arguments.robot)
    controller = arguments.controller_topic or profile.controller_topic
    of_profile = "" if profile.gripper is None else profile.gripper.controller_topic
    gripper = of_profile and (arguments.gripper_topic or of_profile)
    cameras = (arguments.front_camera, arguments.wrist_camera)
    started = processes(arguments)
    nodes = tuple(dict.fromkeys(name for process in started.values() for name in process.nodes))
    namespace = arguments.namespace.strip("/")
    says = tuple(driver_says("robot", arguments).values())
    access = table(nodes, cameras, controller, arguments.joint_states, gripper, says)
    if "sim" in nodes:  # the simulated arm keeps the names that it was built with
        access["sim"] = table(nodes, CAMERAS, profile.controller_topic, gripper=of_profile)["sim"]
    enclaves = {process.enclave: process.nodes for process in started.values()}
    enclaves |= {enclave(namespace, "operator"): OPERATORS, enclave(namespace, "launcher"): (LAUNCHER,)}
    return {path: {node: access[node].resolved(namespace, node) for node in names} for path, names in sorted(enclaves.items())}


def policies(arguments: Arguments = Arguments()) -> str:
    """The policy file's text."""
    root = xml.Element("policy", version=VERSION)
    enclaves = xml.SubElement(root, "enclaves")
    for path, nodes in grants(arguments).items():
        profiles = xml.SubElement(xml.SubElement(enclaves, "enclave", path=path), "profiles")
        for node, access in nodes.items():
            space = "/" if node.startswith("/") else f"/{arguments.namespace.strip('/')}"
            profile = xml.SubElement(profiles, "profile", ns=space, node=node.lstrip("/"))
            for field, (group, grant, entry) in GRANTS.items():
                names = getattr(access, field)
                if names:
                    listed = xml.SubElement(profile, group, {grant: "ALLOW"})
                    for name in names:
                        xml.SubElement(listed, entry).text = name
    xml.indent(root)
    return HEADER + xml.tostring(root, encoding="unicode") + "\n"


def parse(text: str) -> dict[str, dict[str, Access]]:
    """A policy file as `grants` has it. Raises ValueError for what this generator would never write."""
    root = xml.fromstring(text)
    if (root.tag, root.get("version")) != ("policy", VERSION):
        raise ValueError(f'Expected <policy version="{VERSION}">, got <{root.tag} version="{root.get("version")}">.')
    field_of = {(group, grant): field for field, (group, grant, _) in GRANTS.items()}
    found: dict[str, dict[str, Access]] = {}
    for place in root.iterfind("enclaves/enclave"):
        nodes = found.setdefault(place.attrib["path"], {})
        for profile in place.iterfind("profiles/profile"):
            values: dict[str, tuple[str, ...]] = {}
            for listed in profile:
                (grant, rule), *more = listed.attrib.items()
                if more or rule != "ALLOW" or (listed.tag, grant) not in field_of:
                    raise ValueError(f'Enclave {place.attrib["path"]}: <{listed.tag} {grant}="{rule}"> is not a single ALLOW.')
                values[field_of[listed.tag, grant]] = tuple(entry.text or "" for entry in listed)
            nodes[profile.attrib["node"]] = Access(**values)  # the operator's nodes lose the slash that says where they are
    return found


def main(words: list[str] | None = None) -> int:
    """Prints the policies, or writes them with --out; 2 and one line for bad input."""
    words = list(sys.argv[1:] if words is None else words)
    out: Path | None = None
    given = {}
    try:
        if words and words[0] in ("-h", "--help"):
            print(USAGE)
            return 0
        if "--out" in words:
            at = words.index("--out")
            if at + 1 == len(words):
                raise ValueError("--out needs a file.")
            out = Path(words[at + 1])
            del words[at : at + 2]
        for word in words:
            name, separator, value = word.partition(":=")
            if not separator or name not in ARGUMENTS:
                raise ValueError(f"Unknown argument '{word}'. Known, as name:=value: {', '.join(ARGUMENTS)}.")
            given[name] = value
        check_file("--out", out, "policies.xml")
        text = policies(Arguments(**given))
    except (InputError, ValueError, FileNotFoundError) as error:
        print(f"foresight security: {error}", file=sys.stderr)
        return 2
    if out is None:
        print(text, end="")
    else:
        write_atomically(out, text)
        print(f"Written: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
