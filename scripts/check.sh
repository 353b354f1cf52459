#!/usr/bin/env bash
# Everything that must hold, in one command: format, lint, types, tests, the README's code. In an environment with
# gpubp[test]. Further arguments go to pytest, for instance: bash scripts/check.sh -m slow
set -euo pipefail
cd "$(dirname "$0")/.."
python -m ruff format --check .
python -m ruff check .
python -m mypy
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1  # whatever else is installed may warn, and a warning is an error
exec python -m pytest -p xdist -n auto --dist worksteal "$@"
