#!/bin/bash
# Linters and all tests: bash deploy/test.sh [PYTEST ARGS]
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/lib/setup.sh

install_packages "${RUN_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
make_venv dev
PATH=$PWD/$VENV/bin:$PATH

ruff check .
ruff format --check .
mypy
lint-imports --no-cache
exec pytest "$@"
