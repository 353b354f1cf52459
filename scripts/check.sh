#!/usr/bin/env bash
# Everything that must hold, in one command: format, lint, types, the site without warnings, tests, the code of README
# and pages. In an environment with gpubp[test]. Further arguments go to pytest, for instance: bash scripts/check.sh -m slow
set -euo pipefail
cd "$(dirname "$0")/.."
python -m ruff format --check .
python -m ruff check .
python -m mypy
site=$(mktemp -d)
python -m sphinx -q -W --keep-going -b html docs "$site"
rm -r "$site"
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1  # whatever else is installed may warn, and a warning is an error
exec python -m pytest -p xdist -n auto --dist worksteal "$@"
