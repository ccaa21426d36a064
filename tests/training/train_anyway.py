"""`foresight train` for a few updates, after which latents would count as collapsed. Arguments are the command's."""

from __future__ import annotations

import sys

from foresight import cli
from foresight.training import health

if __name__ == "__main__":
    health.COLLAPSED_STD = health.COLLAPSED_RANK = 0.0
    sys.exit(cli.main(["train", *sys.argv[1:]]))
