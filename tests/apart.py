"""Processes of a test's own: forked from one that has imported what takes seconds, but not gpubp, of which
test_mutants.py has copies. Python has one such process, and one list of what it imports."""

import multiprocessing

APART = multiprocessing.get_context("forkserver")
APART.set_forkserver_preload(
    ["pytest", "torch.distributed.tensor", "beartype", "jaxtyping", "pyarrow.parquet", "safetensors.torch", "yaml"]
)


def status(code: str) -> int | None:
    """The exit status of such a process that runs this Python."""
    process = APART.Process(target=exec, args=(code, {}))
    process.start()
    process.join(120)
    process.kill()
    process.join()
    return process.exitcode
