"""Train a population: `gpubp train` under another name. python scripts/train.py --help"""

import sys
from pathlib import Path

try:
    from gpubp.cli import main
except ModuleNotFoundError as missing:
    if missing.name != "gpubp":
        raise
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a checkout that is not installed
    from gpubp.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "train")
    sys.exit(main())
