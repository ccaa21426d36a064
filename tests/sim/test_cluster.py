"""Whether a Ray cluster can be used is said before anything is begun there. What is made there: test_collect.py."""

import re
import socket

import pytest

from foresight import cli
from sim import cluster
from sim.cluster import ClusterError


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ray://head:10001", "must be HOST:PORT of a Ray cluster, or local"),
        ("127.0.0.1:{free}", "refused.*ray start --head.*--ray local"),
    ],
)
def test_where_no_cluster_is_one_line_says_so(tmp_path, capsys, address, said):
    """At once, and nothing is written."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = address.format(free=nobody.getsockname()[1])
        assert cli.main(["collect", "--out", str(tmp_path / "a.h5"), "--ray", address]) == 2
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1 and address in told and re.search(said, told) and list(tmp_path.iterdir()) == []


def test_without_ray_one_line_says_how_to_install_it(tmp_path, capsys, monkeypatch):
    """It is an extra: nothing else needs it."""
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    assert cli.main(["collect", "--out", str(tmp_path / "a.h5"), "--ray", "local"]) == 2
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1 and "-e '.[ray]'" in told and list(tmp_path.iterdir()) == []


def test_a_machine_with_other_code_is_refused_by_name():
    """Its episodes might differ; what differs is told of both ends, and what is alike is not."""
    here = cluster.fingerprint()
    assert cluster._same_code(here, max, (3, 4)) == 4
    with pytest.raises(ClusterError, match=rf"Machine .* has mujoco {here['mujoco']}; this one has mujoco 1\.0\. Set both up"):
        cluster._same_code(here | {"mujoco": "1.0"}, max, (3, 4))
