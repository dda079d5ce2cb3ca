"""The packages that ``fireflyfs doctor`` looks for are the ones that are needed."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from fireflyfs.cli.doctor import PACKAGES

ROOT = Path(__file__).parents[3]


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_doctor_looks_for_every_dependency_and_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {_plain(re.split(r"[^\w.-]", line)[0]) for line in project["dependencies"]}
    made_by = {**packages_distributions(), "google.protobuf": ["protobuf"]}
    assert {_plain(made_by[package][0]) for package in PACKAGES} == declared
