"""Is SROS2 really on where it is asked for? ROS 2 itself starts unprotected when keys are missing, and says so to nobody.

Looks at the variables, the keystore and, by trying, at the DDS build. Makes no keys; `docs/security.md` says how.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

ENABLE, KEYSTORE, STRATEGY = "ROS_SECURITY_ENABLE", "ROS_SECURITY_KEYSTORE", "ROS_SECURITY_STRATEGY"
OVERRIDE = "ROS_SECURITY_ENCLAVE_OVERRIDE"
GUIDE = "See docs/security.md."
# A process of its own, because it must fail: rcl reads the variables at its start, and prints while it fails.
PROBE = """
import rclpy
try:
    rclpy.init(args=["--ros-args", "--enclave", "/probe"])
    rclpy.create_node("probe")
except Exception as error:
    print(error)
"""


class SecurityError(RuntimeError):
    """Security was asked for and cannot be had; the message is one line."""


def check(enclaves: Iterable[str], environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the processes of these enclaves will be protected; False when nobody asks for it.

    Raises SecurityError when somebody does and the DDS build, the keystore or an enclave is missing.
    """
    wanted = environ.get(ENABLE, "")
    if wanted in ("", "false"):
        return False
    if wanted != "true":
        raise SecurityError(f"{ENABLE} is '{wanted}', which ROS 2 takes for off; set it to true, or unset it. {GUIDE}")
    if not supported(environ):
        raise SecurityError(
            f"{ENABLE}=true, but the DDS of this ROS 2 was built without security (the PyPI wheels are); "
            f"use a ROS 2 from apt or source, or unset {ENABLE}. {GUIDE}"
        )
    if environ.get(OVERRIDE):
        raise SecurityError(
            f"{OVERRIDE} would give every process the keys of {environ[OVERRIDE]}; unset it, each process has its own. {GUIDE}"
        )
    keystore = Path(environ.get(KEYSTORE, ""))
    if not environ.get(KEYSTORE) or not (keystore / "enclaves").is_dir():
        raise SecurityError(
            f"{ENABLE}=true, but {KEYSTORE} is {environ.get(KEYSTORE) or 'not set'} and holds no folder enclaves. {GUIDE}"
        )
    missing = [path for path in enclaves if not (keystore / "enclaves" / path.lstrip("/") / "permissions.p7s").is_file()]
    if missing:
        raise SecurityError(
            f"No keys for {', '.join(missing)} in {keystore}: these processes would run unprotected. "
            f"Make them with `ros2 security create_enclave`. {GUIDE}"
        )
    if environ.get(STRATEGY) != "Enforce":
        raise SecurityError(f"{STRATEGY} is '{environ.get(STRATEGY, '')}'; only Enforce refuses what has no keys. {GUIDE}")
    return True


def supported(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the DDS library that ROS 2 uses was built with security: an enclave without keys is refused for its keys."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "enclaves/probe").mkdir(parents=True)
        variables = {**environ, ENABLE: "true", STRATEGY: "Enforce", KEYSTORE: folder, OVERRIDE: "", "ROS_LOG_DIR": folder}
        told = subprocess.run([sys.executable, "-c", PROBE], env=variables, capture_output=True, text=True, timeout=60).stdout
    return not ("security" in told.lower() and any(words in told for words in ("doesn't have", "does not have")))
