"""Whatever the command line is asked wrongly: one line, exit code 2, nothing left behind."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.harness import fireflyfs, mounts_below, processes_of

pytestmark = pytest.mark.system


def refused(*words: str | Path, saying: str, code: int = 2) -> None:
    """It ends with ``code``, one line on standard error, and nothing else anywhere."""
    result = fireflyfs(*words)
    assert result.returncode == code, result.stdout + result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("fireflyfs: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    assert saying in result.stderr


@pytest.mark.parametrize(
    ("words", "saying"),
    [
        (("nonsense",), "No such command 'nonsense'"),
        (("up", "--nonsense"), "No such option: --nonsense"),
        (("up", "--nodes", "three"), "--nodes"),
        (("up", "--nodes", "0"), "--nodes must be 1 to 64"),
        (("up", "--nodes", "2", "--replicas", "3"), "3 replicas need 3 nodes"),
        (("up", "--replicas", "9"), "--replicas must be 1 to 5"),
        (("up", "--chunk-size", "1 parsec"), "--chunk-size"),
        (("up", "--chunk-size", "3MiB"), "power of two"),
        (("up", "superfluous"), "superfluous"),
        (("manager", "serve"), "Missing option '--config'"),
        (("meta", "listen"), "No such command 'listen'"),
        (("mount", "only-one"), "Missing argument 'DIR'"),
    ],
)
def test_usage(tmp_path: Path, words: tuple[str, ...], saying: str) -> None:
    directory = tmp_path / "d"
    words = (*words, "--dir", str(directory)) if words[0] == "up" else words
    refused(*words, saying=saying)
    assert not directory.exists()


def test_verbs_want_a_cluster(tmp_path: Path) -> None:
    for verb in ("status", "down"):
        refused(verb, "--dir", tmp_path, saying="holds no FireflyFS cluster")
    refused("mount", tmp_path, tmp_path / "m", saying="holds no FireflyFS cluster")
    refused("umount", tmp_path, saying="no FireflyFS is mounted")
    assert not list(tmp_path.iterdir())


def test_bad_directories(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused("up", "--dir", tmp_path / "file", saying="is not a directory")
    refused("up", "--dir", tmp_path / "file" / "below", saying="is not a directory")
    refused("up", "--dir", tmp_path, saying="is not empty")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_bad_mount_points(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    file, full = tmp_path / "file", tmp_path / "full"
    file.write_text("")
    (full / "something").mkdir(parents=True)
    for point, saying in (
        (tmp_path / "missing", "is not there: mkdir -p"),
        (file, "is not a directory"),
        (full, "is not empty"),
        (Path("/proc"), "is in use"),
        (tmp_path, "would hide"),
    ):
        refused("up", "--dir", directory, "--mount", point, saying=saying)
        assert not directory.exists()
    assert not processes_of(directory)
    assert not mounts_below(tmp_path)


@pytest.mark.parametrize("role", ["manager", "meta", "storage"])
@pytest.mark.parametrize(
    ("text", "saying"),
    [
        (None, "No such file"),
        ("= 3", "not TOML"),
        ('nonsense = "x"', "unknown key nonsense"),
        ("", "missing key cluster"),
        ("cluster = 7", "cluster must be a table"),
    ],
)
def test_bad_configurations(tmp_path: Path, role: str, text: str | None, saying: str) -> None:
    config = tmp_path / "c.toml"
    if text is not None:
        config.write_text(text)
    refused(role, "serve", "--config", config, saying=saying)


@pytest.fixture
def stopped_cluster(tmp_path: Path) -> Path:
    """A directory as ``up`` makes it, where nothing runs yet."""
    from fireflyfs.supervisor.create import create

    return create(tmp_path / "d", nodes=3, replicas=3, chunk_size=1 << 20).root


def test_a_cluster_keeps_its_shape(stopped_cluster: Path) -> None:
    for option, value in (("--nodes", "4"), ("--replicas", "2"), ("--chunk-size", "2MiB")):
        refused("up", "--dir", stopped_cluster, option, value, saying="cannot be changed")
    assert not processes_of(stopped_cluster)


def port_of(config: Path) -> int:
    line = next(x for x in config.read_text().splitlines() if x.startswith("listen"))
    return int(line.rpartition(":")[2].rstrip('"]'))


@pytest.mark.parametrize("name", ["manager", "storage-2"])
def test_a_busy_port(stopped_cluster: Path, name: str) -> None:
    config = stopped_cluster / "config" / f"{name}.toml"
    with socket.socket() as occupant:
        occupant.bind(("127.0.0.1", port_of(config)))
        occupant.listen()
        saying = f"port {port_of(config)} of {name} is in use"
        refused("up", "--dir", stopped_cluster, saying=saying)
        if name == "manager":  # the others ask the manager first
            refused(name, "serve", "--config", config, saying=str(port_of(config)))
    assert not processes_of(stopped_cluster)


def test_an_open_secret(stopped_cluster: Path) -> None:
    secret = stopped_cluster / "secret"
    secret.chmod(0o644)
    refused("status", "--dir", stopped_cluster, saying=f"chmod 600 {secret}")
    for role, name in (("manager", "manager"), ("meta", "meta-1"), ("storage", "storage-1")):
        config = stopped_cluster / "config" / f"{name}.toml"
        refused(role, "serve", "--config", config, saying="chmod 600")


def test_mounting_what_is_down(stopped_cluster: Path, tmp_path: Path) -> None:
    point = tmp_path / "m"
    point.mkdir()
    refused("mount", stopped_cluster, point, saying="is not up: fireflyfs up")
    assert not mounts_below(tmp_path)


def in_namespace(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script with mounts of its own, which end with it."""
    result = subprocess.run(
        ["unshare", "--mount", "bash", "-c", script], capture_output=True, text=True, check=False
    )
    if "unshare" in result.stderr:
        pytest.skip("a mount namespace needs root")
    return result


def test_a_machine_without_fuse(tmp_path: Path) -> None:
    up = f"{sys.executable} -m fireflyfs.cli up --dir {tmp_path}/d"
    result = in_namespace(f"mount -t tmpfs none /dev && exec {up}")
    assert result.returncode == 2
    assert result.stderr.startswith("fireflyfs: there is no /dev/fuse: modprobe fuse")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "d").exists()


def test_a_full_disk(tmp_path: Path) -> None:
    up = f"{sys.executable} -m fireflyfs.cli up --dir {tmp_path}/d"
    fill = f"dd if=/dev/zero of={tmp_path}/x bs=1k count=48 2>/dev/null"
    script = f"mount -t tmpfs -o size=64k none {tmp_path} && {fill}; {up}; echo $?; ls {tmp_path}"
    result = in_namespace(script)
    assert result.stdout.split() == ["1", "x"]
    assert result.stderr == f"fireflyfs: cannot make {tmp_path}/d: No space left on device\n"
