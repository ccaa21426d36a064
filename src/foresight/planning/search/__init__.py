"""Ways to search, one a file; `methods.py` makes them by name."""

from typing import Literal

Method = Literal["cem", "icem", "mppi", "predictive_sampling", "gradient", "hybrid"]
