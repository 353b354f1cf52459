"""The GPU engine through NVIDIA's own bindings and the driver of driver.cpp, which plays kernels on a CPU: what differs
from the CPU engine's bits. test_gpu_driver.py runs it, in a process whose libcuda.so.1 that driver is.

python -m tests.through_driver STREAM: the stream that torch says is its current one; the driver knows 77 alone.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from gpubp.engines import build, cpu, cuda, device, nvrtc

from .helpers import train
from .playing import HEADER
from .test_compiled import differences
from .test_gpu import BLOCK, EVERYONE, PARTS, THREAD, small


def played(text: str, arch: int) -> bytes:
    """The path of a kernel's library, in place of its cubin."""
    return str(build.library(f'#include "{HEADER}"\n{text}PLAY\n')._name).encode()


def main(stream: int) -> None:
    found = {
        "is_available": lambda: True, "init": lambda: None, "current_device": lambda: 0,
        "get_device_capability": lambda _: (9, 0), "device": lambda _: nullcontext(),
        "current_stream": lambda *_: SimpleNamespace(cuda_stream=stream),
        "get_device_properties": lambda _: SimpleNamespace(multi_processor_count=1),
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.backends.cuda, "is_built", lambda: True)
        for name, value in found.items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(device, "here", lambda tensor: True)
        patch.setattr(nvrtc, "cubin", played)
        patch.setattr(nvrtc, "use", lambda code: nvrtc.Use(64, 0))
        own = small()
        expected = train(own.population(), own.data(), engine=cpu, **own.settings)
        for layout in (THREAD, BLOCK, PARTS, None):
            patch.setattr(cuda, "LAYOUT", layout)
            patch.setattr(cuda, "KERNELS", {})
            got = train(own.population(), own.data(), engine=cuda, **own.settings)
            print(differences(got, EVERYONE, expected, EVERYONE))


if __name__ == "__main__":
    main(int(sys.argv[1]))
