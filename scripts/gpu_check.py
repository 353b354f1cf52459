"""Check gpubp on this machine's GPUs: tests, bits, independence, benchmarks. One command, under ten minutes.

    python scripts/gpu_check.py [--out FOLDER] [--minutes 9.5]

Needs gpubp[test,bench]. A table, JSON and plots go to the folder, with the reason for everything that was not run.
The exit status is 0 if nothing failed: a step without time has not failed, a proof or test that was cut short has.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # benchmarks/ is not installed


def main(arguments: Sequence[str] | None = None) -> int:
    from gpubp.system import gpus

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    folder = ROOT / "benchmarks" / "results" / "gpu_check"
    parser.add_argument("--out", type=Path, default=folder, help="where results go")
    parser.add_argument("--minutes", type=float, default=9.5, help="after which the check is stopped")
    chosen = parser.parse_args(arguments)
    missing = gpus.missing()
    if missing is not None:
        sys.stderr.write(f"gpu_check needs a CUDA GPU: {missing}\n")
        return 2
    from benchmarks import check  # not needed without a GPU

    return check.main(chosen.out.resolve(), chosen.minutes)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    sys.exit(main())
