"""kernel/example.h, by which an editor and a person read the kernel's sources: it is what the program of the tutorial's
network prints, and headers compile behind it; layouts that do not exist are refused.

A change of what is printed writes the file anew: python -m tests.test_example
"""

import re
import subprocess
from pathlib import Path

import pytest
import torch

from gpubp import tutorial
from gpubp.engines import build
from gpubp.engines.constants import constants, tiles
from gpubp.engines.job import END, declared
from gpubp.engines.key import Key, Samples
from gpubp.engines.layout import Kind, Layout
from gpubp.engines.program import Program

from .helpers import had
from .playing import HEADER

EXAMPLE = build.SOURCES / "example.h"
EIGHT = Layout(vector=8, cols=4)
ABOUT = """\
// The program of the tutorial's network, lanes being 8 networks, as engines/program.py prints it, by which a person and
// an editor read the sources of kernel/. A compiler is given such a text for each kernel; this one it never sees.
#pragma once
"""
ELSEWHERE = """\
#if 0  // What a program of GPU_STREAMED has besides. Its matrices and long vectors (stream.py) are in Memory.far.
"""


def example() -> str:
    """The file."""
    own, streamed = program().text, program(Layout(Kind.GPU_STREAMED, registers=4, threads=32))
    named = [(line, re.match(r"(?:#define|constexpr int) (\w+) ", line)) for line in constants(streamed.plan)]
    new = [line for line, name in named if name and (f" {name[1]} " not in own or name[1] == "LAYOUT")]
    return "\n".join([ABOUT + own + ELSEWHERE + "\n".join(new), *tiles(streamed.plan), *declared(END), "#endif", ""])


def program(layout: Layout = EIGHT, order: str = "simultaneous") -> Program:
    recipe = tutorial.config(1, order).recipe(tutorial.SPEC)
    return Program(Key(tutorial.SPEC, recipe, torch.float32, Samples()), layout)


def checked(text: str, folder: Path) -> str:
    """What the compiler says."""
    command = had(build.compiler)
    (folder / "kernel.cpp").write_text(text, encoding="utf-8")
    flags = [*(flag for flag in build.FLAGS if flag != "-shared"), f"-march={build.ARCH}", f"-I{build.SOURCES}"]
    done = subprocess.run(
        [*command, *flags, "-fsyntax-only", str(folder / "kernel.cpp")], capture_output=True, text=True
    )
    return done.stderr


def test_the_example_is_what_the_program_prints() -> None:
    assert EXAMPLE.read_text(encoding="utf-8") == example(), "python -m tests.test_example writes it anew"


def test_every_constant_of_the_example_says_what_it_is() -> None:
    named = [line for line in EXAMPLE.read_text().splitlines() if line.startswith(("#define", "constexpr int"))]
    assert len(named) > 50
    assert [line for line in named if "  // " not in line] == []


def test_a_kernels_key_depends_on_every_header() -> None:
    headers = [*build.SOURCES.rglob("*.h")]
    assert {path.parent.name for path in headers} == {"kernel", "machines"}
    assert all(path.read_text(encoding="utf-8") in build.sources() for path in headers)


OTHERS = {path.name for path in (build.SOURCES / "machines").glob("*.h")} - {"cpu_networks.h"} | {"gpu.h", "show.h"}
HEADERS = sorted(path.relative_to(build.SOURCES) for path in build.SOURCES.rglob("*.h") if path.name not in OTHERS)


@pytest.mark.parametrize("header", HEADERS, ids=str)
def test_a_header_compiles_behind_the_example(header: Path, tmp_path: Path) -> None:
    assert checked(f'#include "example.h"\n#include "{header}"\n', tmp_path) == ""


@pytest.mark.parametrize("header", ["memory.h", "network.h", "call.h", "loss.h"])
def test_a_header_by_itself_finds_the_example(header: str, tmp_path: Path) -> None:
    assert checked(f'#include "{header}"\n', tmp_path) == ""


MISSING = {
    "two registers": Layout(vector=8, registers=2),
    "three registers of outputs": Layout(Kind.CPU_OUTPUTS, 8, registers=3),
    "slots elsewhere on a CPU": Layout(vector=8, slots_apart=True),
    "slots elsewhere where all matrices are": Layout(Kind.GPU_STREAMED, registers=4, threads=32, slots_apart=True),
    "a GPU's vectors": Layout(Kind.GPU_THREAD, 2, threads=32),
    "teams where a thread is a network": Layout(Kind.GPU_THREAD, threads=8, teams=4),
    "more than a warp": Layout(Kind.GPU_BLOCK, threads=16, teams=4),
    "teams that stream": Layout(Kind.GPU_STREAMED, registers=4, threads=8, teams=4),
    "a wide block of single numbers": Layout(Kind.GPU_WIDE, threads=32),
}


@pytest.mark.parametrize("name", MISSING)
def test_a_layout_that_does_not_exist_is_refused(name: str, tmp_path: Path) -> None:
    text = program(MISSING[name]).text
    said = checked(f'#include "{HEADER}"\n{text}' if MISSING[name].threads else text, tmp_path)
    assert "static assertion failed: no such layout" in said


def test_layers_that_change_one_by_one_are_not_cut(tmp_path: Path) -> None:
    text = program(EIGHT, "layerwise").text.replace("BATCH = 1;", "BATCH = 2;")
    assert "needs the whole batch at once" in checked(f'{text}#include "memory.h"\n', tmp_path)


if __name__ == "__main__":
    EXAMPLE.write_text(example(), encoding="utf-8")
