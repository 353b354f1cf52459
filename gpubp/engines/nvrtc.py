"""Compiles C++ text to a cubin, machine code of one GPU architecture, with NVRTC; this needs no GPU.

NVRTC and cuda.core, which calls it, are packages (pip install "gpubp[gpu]"). Cubins are cached with the
CPU's kernels (cache.py), named by a hash of text, sources, compiler and flags. Arithmetic follows IEEE 754: no product
is contracted to a fused multiply-add, denormal numbers are kept, division and square root are rounded correctly.
"""

import functools
import hashlib
import struct
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import EngineError
from . import build, cache

OPTIONS = {"std": "c++17", "fma": False, "ftz": False, "prec_div": True, "prec_sqrt": True,
           "device_as_default_execution_space": True, "device_int128": True,
           "no_source_include": True}  # fmt: skip  # otherwise headers in the working directory would precede kernel/'s
REGISTERS, STACK = 0x2F, 0x11  # attributes of a function in a cubin's .nv.info


class Use(NamedTuple):
    """A kernel's resources per thread: registers, and bytes of local memory, which holds spilled registers."""

    registers: int
    local: int


def compiler() -> tuple[Any, str]:
    """cuda.core, and NVRTC's version. Raises EngineError if a package is missing."""
    try:
        from cuda.bindings import nvrtc

        version = ".".join(str(part) for part in nvrtc.nvrtcVersion()[1:])
        import cuda.core as core
    except (ImportError, RuntimeError, OSError) as error:  # RuntimeError: the library is missing
        raise EngineError(
            f'engine "cuda" needs NVIDIA\'s compiler: pip install "gpubp[gpu]" ({type(error).__name__}: '
            f'{(str(error).splitlines() or [""])[0]}); engine "eager" needs none'
        ) from None
    return core, version


def cubin(text: str, arch: int) -> bytes:
    """`text`, which may include the sources of kernel/, compiled for sm_<arch>. Raises EngineError if it fails."""
    core, version = compiler()
    flags = [flag.decode() for flag in core.ProgramOptions(arch=f"sm_{arch}", **OPTIONS).as_bytes("nvrtc")]
    key = hashlib.sha256("\0".join((text, build.sources(), "nvrtc", version, *flags)).encode()).hexdigest()[:32]
    return _cubin(key, text, arch, cache.place())


@functools.cache
def _cubin(key: str, text: str, arch: int, folder: Path | None) -> bytes:
    found = cache.kept(key, folder, ".cubin", Path.read_bytes)
    if found:
        return found
    code = compiled(text, arch)
    cache.keep(code, key, folder, ".cubin", Path.read_bytes)
    return code


def compiled(text: str, arch: int) -> bytes:
    """The cubin of `text`, compiled. Raises like cubin()."""
    core, _ = compiler()
    options = core.ProgramOptions("kernel.cu", f"sm_{arch}", include_path=str(build.SOURCES), **OPTIONS)
    program = core.Program(text, "c++", options)
    try:
        return bytes(program.compile("cubin").code)
    except Exception as error:  # cuda.core has no class for compilation errors; the message has the log
        raise EngineError(
            f'engine "cuda": NVRTC cannot compile the kernel ({build.summary(str(error), cache.place())}); engine '
            '"eager" needs no compiler'
        ) from None
    finally:
        program.close()


def use(code: bytes) -> Use:
    """Resources of a cubin's single kernel, from its ELF file: section .nv.info is a list of attributes, each with a
    format, a number, a size, and, for these two, a function and a value. Raises EngineError if they are missing."""
    found: dict[int, int] = {}
    for name, data in sections(code):
        at = 0
        while name == ".nv.info" and at + 4 <= len(data):
            form, attribute, size = struct.unpack_from("<BBH", data, at)
            if form == 4 and attribute in (REGISTERS, STACK):
                found[attribute] = max(found.get(attribute, 0), struct.unpack_from("<I", data, at + 8)[0])
            at += 4 + (size if form == 4 else 0)
    if found.keys() != {REGISTERS, STACK}:
        raise EngineError(
            'engine "cuda": NVRTC\'s cubin does not say how many registers and how much local memory the kernel needs; '
            'engine "eager" needs no compiler'
        )
    return Use(found[REGISTERS], found[STACK])


def sections(code: bytes) -> list[tuple[str, bytes]]:
    """Name and content of the sections of a little-endian 64-bit ELF file."""
    (table,) = struct.unpack_from("<Q", code, 0x28)
    size, count, names = struct.unpack_from("<HHH", code, 0x3A)
    heads = [struct.unpack_from("<IIQQQQ", code, table + number * size) for number in range(count)]
    text = heads[names][4]
    return [
        (code[text + head[0] : code.index(b"\0", text + head[0])].decode(), code[head[4] : head[4] + head[5]])
        for head in heads
    ]
