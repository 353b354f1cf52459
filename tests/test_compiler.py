"""What a compiler lacks, says or does is one line and a file, and never a kernel."""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import gpubp
from gpubp import engines
from gpubp.cli import main
from gpubp.engines import build, cache, cpu
from gpubp.errors import EngineError
from gpubp.system import config_file

from .libraries import an_empty_cache, answer, kept, text, wrapper  # noqa: F401

TRAIN = "train --data xor --widths 2,1 --networks 2 --epochs 2 --tensorboard false --json --run-dir"


def refused(*parts: str) -> None:
    """Asking for any kernel is refused in these words."""
    with pytest.raises(EngineError) as caught:
        answer(0)
    for part in parts:
        assert part in str(caught.value)


def test_cxx_names_the_compiler_and_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", f"{build.compiler()[0]} -DNUMBER=13 '-DOTHER=1 + 1'")
    assert build.library(text(0).replace("0", "NUMBER + OTHER")).answer() == 15


def test_a_missing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    refused("CXX is 'no-such-compiler', which is not found", 'engine "eager" needs none')
    monkeypatch.setenv("CXX", "g++ 'unbalanced")
    refused('CXX is "g++ \'unbalanced"; a command, quotation marks in pairs, expected')
    monkeypatch.setenv("CXX", wrapper(tmp_path / "script", "exit 0").replace("script", "."))
    refused("which is not found")


def test_a_failed_compiler_is_quoted_in_one_line_with_the_file_of_its_output(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EngineError, match=r"cannot compile the kernel \(exit status 1; .*no-such-file\.h.*") as caught:
        build.library('#include "no-such-file.h"\n')
    (log,) = folder.iterdir()
    assert f"; full output: {log})" in str(caught.value)
    assert len(log.read_text().splitlines()) > 1
    assert log.stat().st_mode & 0o022 == 0, "nobody else can write it"
    working = '[ "$1" = --version ] && echo 1 && exit 0'
    for name, script, words in (
        ("speechless", f"{working}; exit 3", "exit status 3; no output"),
        ("garbled", f"{working}; printf 'caf\\351\\033[2J' >&2; exit 1", "caf\ufffd\\x1b[2J; full"),
        ("lazy", f"{working}; exit 0", "cannot compile the kernel (exit status 0; no output)"),
        (
            "wrong",
            f'{working}; while [ "$1" != -o ]; do shift; done; echo text > "$2"',
            "cannot compile and load its kernel",
        ),
        ("silent", "exit 1", "does not run"),
    ):
        if name == "wrong" and sys.platform != "linux":
            continue
        monkeypatch.setenv("CXX", wrapper(tmp_path / name, script))
        refused(words)


def test_a_log_that_the_cache_cannot_hold_is_a_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert Path(cache.log("words", tmp_path / "file")).read_text() == "words"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    assert cache.log("words", None) == "a file that could not be written"


def test_compiler_output_does_not_become_a_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = '[ "$1" = --version ] && echo 1 && exit 0; printf "error: a[/b]c\\nseed: 99\\n" >&2; exit 1'
    monkeypatch.setenv("CXX", wrapper(tmp_path / "bad", script))
    monkeypatch.chdir(tmp_path)
    assert main([*TRAIN.split(), "run"]) == 0
    (log,) = (tmp_path / "cache").iterdir()
    assert f"error: a[/b]c; full output: {log}" in " ".join(capsys.readouterr().err.split())
    assert config_file.read(tmp_path / "run" / "config.yaml")["seed"] == 0
    assert main(["resume", "run", "--epochs", "4"]) == 0
    assert config_file.read(tmp_path / "run" / "config.yaml")["seed"] == 0


@pytest.mark.parametrize(("when", "patience"), [("--version", "VERSION_PATIENCE"), ("-std=c++17", "PATIENCE")])
def test_a_hanging_compiler_is_stopped_and_what_it_began_too(
    when: str, patience: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, patience, 0.2)
    child = tmp_path / "child"
    script = f'case "$*" in *{when}*) sleep 60 & echo $! > {child}; wait;; esac; echo 1'
    monkeypatch.setenv("CXX", wrapper(tmp_path / "slow", script))
    begun = time.monotonic()
    refused("has not ended in 0.2 s", 'engine "eager" needs no compiler')
    assert time.monotonic() - begun < 30
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", child.read_text().strip()], capture_output=True, text=True
    ).stdout
    assert state.strip()[:1] in ("", "Z"), "a letter for its niceness may follow"


def test_those_that_wait_for_a_compilation_have_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = f'[ "$1" = --version ] || {{ echo >> {tmp_path / "tries"}; sleep 0.2; exit 1; }}'
    monkeypatch.setenv("CXX", wrapper(tmp_path / "failing", script))
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(build.library, text(0)) for _ in range(4)]
    assert all("cannot compile the kernel (exit status 1" in str(each.exception()) for each in found)
    assert (tmp_path / "tries").read_text() == "\n"
    refused("exit status 1")
    assert (tmp_path / "tries").read_text() == "\n\n", "whoever asks later tries again"


KILLED = '[ "$1" = --version ] || grep -qs vector_bytes -- "$@" || {{ {}; kill -9 $$; }}; exec {} "$@"'


def test_a_kernel_whose_compiler_is_killed_ends_a_run_or_is_compiled_again_alone_and_this_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before its first step, if it is always killed; at the second try, if once."""
    monkeypatch.setattr(cpu, "KERNELS", {})
    monkeypatch.setenv("CXX", wrapper(tmp_path / "always", KILLED.format(":", build.compiler()[0])))
    assert main([*TRAIN.split(), str(tmp_path / "made")]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert re.search(r"cannot compile the kernel \(exit status -9; no output\); engine \"eager\" needs no", told.err)
    monkeypatch.delenv("CXX")
    once = f'mkdir {tmp_path / "killed"} 2> /dev/null || exec {build.compiler()[0]} "$@"'
    monkeypatch.setenv("CXX", wrapper(tmp_path / "once", KILLED.format(once, build.compiler()[0])))
    assert main(["resume", str(tmp_path / "made"), "--json"]) == 0
    said = capsys.readouterr()
    assert "ended before its first checkpoint; it restarts" in said.err
    told = json.loads(said.out.splitlines()[-1])
    assert told["engine"] == "cpu"
    (note,) = told["notes"]
    assert re.search(r"a kernel was compiled at the second try; the first: .*\(exit status -9; no output\)", note)


@pytest.mark.parametrize("flag", ["-ffast-math", "-funsafe-math-optimizations", "-Ofast"])
def test_flags_for_fast_arithmetic_change_neither_kernels_nor_torch(flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", f"{build.compiler()[0]} {flag}")
    fast = "__FINITE_MATH_ONLY__\n#ifdef __FAST_MATH__\n + 1\n#endif\n"
    assert build.library(text(0).replace("0", fast)).answer() == 0
    tiny = torch.full((1,), 1e-310, dtype=torch.float64)
    assert float(tiny / 2) > 0, "denormals are not flushed"


def test_ctrl_c_at_the_terminal_does_not_reach_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = tmp_path / "groups"
    script = f'[ "$1" = --version ] || ps -o pgid= -p $$ > {groups}; exec {build.compiler()[0]} "$@"'
    monkeypatch.setenv("CXX", wrapper(tmp_path / "compiler", script))
    assert answer(21) == 21
    assert int(groups.read_text()) != os.getpgid(0)


def test_a_failure_is_not_remembered(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, flag = build.compiler()[0], tmp_path / "repaired"
    script = f'[ "$1" = --version ] || [ -e {flag} ] || exit 1; exec {real} "$@"'
    monkeypatch.setenv("CXX", wrapper(tmp_path / "flaky", script))
    refused("exit status 1")
    flag.touch()
    assert answer(0) == 0
    monkeypatch.setenv("GPUBP_CACHE", str(tmp_path / "elsewhere"))
    assert answer(0) == 0
    assert len(kept(tmp_path / "elsewhere")) == len(kept(folder)) == 1


def test_a_read_only_temporary_directory_gives_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    refused("cannot compile and load its kernel", "TMPDIR", 'engine "eager" needs none')


def test_the_probe_has_every_header_of_the_kernels() -> None:
    named = re.compile(r"#include <(.+?)>")
    assert set(named.findall(build.PROBE)) == set(named.findall(build.sources()))


def test_a_compiler_without_headers_leaves_the_eager_engine_which_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", shlex.join([*build.compiler(), "-nostdinc"]))
    spec, config = gpubp.NetworkSpec((3, 2)), gpubp.TrainConfig(steps=1)
    choice = engines.choose("auto", spec, config, torch.device("cpu"))
    assert choice.name == "eager"
    assert re.search(r"cannot compile .*No such file|cannot compile .*not found", choice.reason)
    with pytest.raises(EngineError, match="cannot compile the kernel"):
        engines.choose("cpu", spec, config, torch.device("cpu"))
