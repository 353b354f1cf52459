"""fault(): what a command does wrong with a file or flags that somebody changed, in words; None if nothing."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import numpy as np
import pyarrow.parquet

import gpubp
from gpubp.checkpoints import checkpoint
from gpubp.cli import COMMANDS, main
from gpubp.errors import GpubpError
from gpubp.line import line
from gpubp.system import files

from . import mutated_arrays, mutations
from .files import status
from .helpers import handled
from .mutations import Chance
from .no_ray import BEGUN
from .short_runs import in_shards, sealed
from .watch import watched

HELD = 200 << 20  # bytes that are free, as far as gpubp knows
SHORT = ["--networks", "2", "--steps", "2", "--engine", "eager", "--device", "cpu", "--tensorboard", "false"]
READING = ("", "", "--per b", "--folds 2", "--text a", "--dates a", "--drop a", "--impute mean", "--target a",
           "--decimal ,", "--task regression", "--scale-targets standard")  # fmt: skip


class Kind(NamedTuple):
    """A kind of file: its name, the good one that it comes from, files of its form that are wrong otherwise, and the
    commands that read it."""

    name: str
    good: str
    wrong: mutations.Make
    arguments: Callable[[Chance, str], list[str]]


def as_data(chance: Chance, name: str) -> list[str]:
    unnamed = name.endswith(".npz")
    if chance.random() < 0.4 and not unnamed:
        return ["predict", "run", "--data", name, *chance.choice([[], ["--proba"], ["--each"], ["--spread"]])]
    named = [] if unnamed else ["--target", "y", *chance.choice(READING).split()]
    return ["train", "--data", name, "--run-dir", "out", *named, *SHORT]


def as_design(_: Chance, name: str) -> list[str]:
    return ["train", "--data", "xor", "--design", name, "--run-dir", "out", *SHORT[2:]]


def as_settings(_: Chance, name: str) -> list[str]:
    return ["train", "--config", name, "--run-dir", "out", *SHORT[4:]]


def as_settings_of_a_cluster(chance: Chance, name: str) -> list[str]:
    flags = chance.choice([[], ["--cluster", "local"], ["--cluster", "10.0.0.1:6379"], ["--shards", "2"]])
    return [*as_settings(chance, name), *flags]


def as_networks(chance: Chance, name: str) -> list[str]:
    commands = [f"predict {name} --data data.csv", f"export {name} --to numpy --output out.py",
                f"predict {name} --data data.csv --networks all --proba",
                f"export {name} --to onnx --output out.onnx"]  # fmt: skip
    return chance.choice(commands).split()


KINDS = {
    "csv": Kind("x.csv", "data.csv", mutations.csv, as_data),
    "parquet": Kind("x.parquet", "data.parquet", mutated_arrays.parquet_file, as_data),
    "npz": Kind("x.npz", "data.npz", mutated_arrays.npz, as_data),
    "design": Kind("x.csv", "design.csv", mutations.csv, as_design),
    "parquet design": Kind("x.parquet", "design.parquet", mutated_arrays.parquet_file, as_design),
    "yaml": Kind("x.yaml", "config.yaml", mutations.yaml_file, as_settings),
    "yaml of a cluster": Kind("x.yaml", "cluster.yaml", mutations.yaml_file, as_settings_of_a_cluster),
    "onnx": Kind("x.onnx", "networks.onnx", mutated_arrays.onnx_file, lambda _, name: ["from_onnx", name]),
    "safetensors": Kind("x.safetensors", "networks.safetensors", mutated_arrays.safetensors_file, as_networks),
}


def good() -> None:
    """One good file of each kind, and a run, in the working directory."""
    rows = "".join(f"{n / 3:.2f},{'red' if n % 3 else 'blue'},{'ab'[n % 2]}\n" for n in range(12))
    Path("data.csv").write_text(f"a,b,y\n{rows}")
    Path("design.csv").write_text('lr,optimizer,widths,seed\n0.1,adam,"2,3,1",1\n,sgd,,2\n')
    for name in ("data", "design"):
        table = pyarrow.csv.read_csv(f"{name}.csv")
        if name == "design":
            table = table.set_column(2, "widths", [[[2, 3, 1], None]])
        pyarrow.parquet.write_table(table, f"{name}.parquet")
    np.savez("data.npz", inputs=np.eye(8)[:, :2], targets=np.arange(8) % 2)
    Path("config.yaml").write_text("data: xor\nnetworks: 2\nsteps: 2\nlr: 0.01..0.1:log\nwidths: 2,3,1\nhidden: tanh\n")
    Path("cluster.yaml").write_text(f"{Path('config.yaml').read_text()}cluster: local\nshards: 2\n")
    assert main(["train", *["--data", "data.csv", "--target", "y", "--run-dir", "run"], *SHORT]) == 0
    in_shards(Path("run"), Path("apart"), [f"shards/{n}/checkpoint/tensors-00000001.safetensors" for n in range(2)])
    assert main(BEGUN) == 1  # nobody trains
    assert main(["export", "run", "--to", "onnx", "--output", "networks.onnx"]) == 0
    assert main(["export", "run", "--to", "safetensors", "--networks", "2", "--output", "networks.safetensors"]) == 0


@contextlib.contextmanager
def within(place: Path) -> Iterator[None]:
    """In a new folder of `place`, with the run, good files that flags name, and `good` itself."""
    here, before = place / "here", Path.cwd()
    here.mkdir()
    os.chdir(here)
    try:
        Path("good").symlink_to(place / "good")
        shutil.copytree("good/run", "run")
        for name in ("data.csv", "config.yaml", "networks.safetensors"):
            shutil.copy(f"good/{name}", name)
        os.mkfifo("pipe.csv")
        yield
    finally:
        os.chdir(before)
        shutil.rmtree(here)


def of_a_file(kind: Kind, chance: Chance) -> tuple[list[str], str]:
    """A file of that kind in the working directory, changed. -> the command that reads it, what was done"""
    path, whole = Path(kind.name), Path("good", kind.good).read_bytes()
    way = chance.choice(["bytes", "bytes", "form", "form", "form", "place", "size"])
    if way == "bytes":
        content, what = mutations.damaged(whole, chance)
        path.write_bytes(content)
    elif way == "form":
        path.write_bytes(kind.wrong(chance, whole))
        what = "other content"
    elif way == "size":
        path.write_bytes(whole)
        what = mutations.sparse(path, chance)
    else:
        path.write_bytes(whole)
        Path("victim").write_text("somebody's")
        what = mutations.replaced(path, chance, Path("good", "networks.onnx").read_bytes(), Path("victim"))
    return kind.arguments(chance, kind.name), what


def of_a_run_in_shards(chance: Chance) -> tuple[list[str], str]:
    """As of_a_run(), of one whose rows are in the files of two shards."""
    shutil.rmtree("run")
    shutil.copytree("good/apart", "run")
    return of_a_run(chance)


def of_a_run(chance: Chance) -> tuple[list[str], str]:
    """The run in the working directory, changed by somebody who knows how digests are made. -> as of_a_file()"""
    run = Path("run")
    manifest = run / "checkpoint" / "manifest.json"
    told = json.loads(manifest.read_text())
    kind = chance.choice(["preparation", "preparation", "manifest", "results", "results", "design", "folder", "bytes",
                          "size", "rows"])  # fmt: skip
    if kind == "preparation":
        path = run / "preparation.json"
        path.write_text(json.dumps(mutations.elsewhere(json.loads(path.read_text()), chance)[0]))
        told["preparation"] = checkpoint.digest_of(path)
    elif kind == "manifest":
        told, _ = mutations.elsewhere(told, chance)
    elif kind == "results":
        path = run / "results.parquet"
        path.write_bytes(mutated_arrays.results(chance, path.read_bytes()))
    elif kind == "design":
        (run / "design.parquet").write_bytes(mutated_arrays.parquet_file(chance, b""))
    elif kind == "size":
        found = [*run.rglob("*.json*"), *run.rglob("*.parquet"), *run.glob("*.*"), run / "design.parquet"]
        path = chance.choice(sorted({each for each in found if not each.is_dir()}))
        path.touch()
        mutations.sparse(path, chance)
    elif kind == "rows" and "rows" in told:
        named = chance.choice(told["rows"])
        path = run / named["file"]
        path.write_bytes(mutated_arrays.rows_of_a_shard(chance, path.read_bytes()))
        named["sha256"] = files.digest(path)
    elif kind == "folder":
        path = chance.choice([run, run / "checkpoint", run / "tensorboard"])
        shutil.move(path, "elsewhere") if path.exists() else Path("elsewhere").mkdir()
        path.symlink_to(Path("elsewhere").absolute() if chance.random() < 0.5 else path.name)
    else:
        path = chance.choice(sorted(each for each in run.rglob("*") if each.is_file()))
        path.write_bytes(mutations.damaged(path.read_bytes(), chance)[0])
    if kind in ("preparation", "manifest", "rows"):
        manifest.write_text(sealed(told))
    commands = ["inspect run", "inspect run --by lr", "report run", "explain run", "explain run --html out.html",
                "resume run", "replay run", "replay run --network 1 --step 1", "replay run --network 1 --html out.html",
                "verify run", "verify --config run/config.yaml",
                "predict run --data data.csv", "export run --to numpy --output out.py", "resume run --steps 4",
                "inspect run --json", "predict run --data data.csv --networks all --spread"]  # fmt: skip
    return chance.choice(commands).split(), kind


WORDS = ("run", "data.csv", "x.csv", "config.yaml", "networks.safetensors", ".", "nothing", "pipe.csv", "/dev/null",
         "/dev/zero", "--", "-", "---", "-h", "=", "--=", "xor", "iris", "2,3,1", "2,-3,1", "1e-4..1e-1:log", "1..",
         "..", "a..b", "3..1", "0.1,0.01", "nan", "inf", "-1", "0", "1e400", "9" * 400, "2" * 18, "true", "False",
         "null", "[1,2]", "{a: 1}", "cuda:9", "mps", "meta", "all", "best", "tutorial", "status", "lr,lr", "1:2:3",
         "0.5", "7", "é")  # fmt: skip


def of_flags(chance: Chance) -> tuple[list[str], str]:
    """A command line with words changed, left out, repeated or of elsewhere; without verify, which begins processes
    if nothing is wrong."""
    actions = [action for command in COMMANDS.values() for action in command.parser()._actions]
    options = [option for action in actions for option in action.option_strings]
    trainings = (["train", *flags.split(), *SHORT]
                 for flags in ("--data xor", "--data data.csv --target y", "--config config.yaml"))  # fmt: skip
    others = ("inspect run --by lr", "resume run", "resume run --steps 4", "report run --out out.html", "dashboard run",
              "predict run --data data.csv", "export run --to onnx", "explain run --json", "explain --html out.html",
              "inspect run --json", *(name for name in COMMANDS if name != "verify"), "")  # fmt: skip
    usual = chance.choice([*trainings, *map(str.split, others)])
    given = [*usual, "--run-dir", "out"] if usual[:1] == ["train"] else [*usual]
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(given) + 1)
        kind = chance.choice(["flag", "flag", "flag", "word", "name", "gone", "twice", "bytes"])
        word = chance.choice([*WORDS, *mutations.NAMES])
        if kind == "flag":
            flag = chance.choice(options)
            given += [f"{flag}={word}"] if chance.random() < 0.3 else [flag, word]
        elif kind in ("word", "name"):
            given[at : at + 1] = [word]
        elif kind == "gone":
            del given[at : at + 1]
        elif kind == "twice":
            given[at:at] = given[at : at + 2]
        elif kind == "bytes" and at < len(given):
            given[at] = mutations.damaged(given[at].encode(errors="replace"), chance)[0].decode(
                "utf-8", "surrogateescape"
            )
    given = [re.sub("[\0\ud800-\udbff]", "0", each) for each in given]  # which no system passes on
    given = [each for each in given if "/etc/" not in each]
    return given, "flags"


def ran(arguments: list[str]) -> object:
    """What `gpubp arguments`, or Population.from_onnx(), ends with."""
    if arguments[:1] != ["from_onnx"]:
        return status(arguments)
    try:
        gpubp.Population.from_onnx(arguments[1:], "cross_entropy")
    except GpubpError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


@contextlib.contextmanager
def stopping(seconds: float) -> Iterator[None]:
    """Ctrl-C after some time, and again: flags may ask for a training of years."""

    def interrupt(_: int, frame: FrameType | None) -> None:
        if frame is None or frame.f_code.co_name != "gc_callback":  # hypothesis's, in which it would be lost
            signal.raise_signal(signal.SIGINT)

    with handled(signal.SIGVTALRM, interrupt):
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def fault(arguments: list[str], root: Path) -> str | None:
    """What is wrong with how `gpubp arguments` ends in the working directory below `root`."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), watched(root), stopping(2):
            found = ran(arguments)
    except BaseException:
        return traceback.format_exc()
    out.flush()
    told, said = out.buffer.getvalue().decode(errors="replace"), err.getvalue()  # type: ignore[attr-defined]
    if any(each != line(each) and each.strip() for each in said.split("\n")):
        return f"unprintable: {said!r}"
    if arguments[0:1] != ["predict"] and any(each != line(each) and each.strip() for each in told.split("\n")):
        return f"unprintable: {told!r}"
    errors = [each for each in said.splitlines() if each.startswith("error: ")]
    last = said.splitlines()[-1:]
    if found in (1, 2, 4) and (len(errors) != 1 or last != errors):
        return f"ended with {found}, and said {said!r}"
    if found not in (0, 1, 2, 3, 4, 130) or "Traceback" in said or (found == 0 and errors):
        return f"ended with {found}, and said {said!r}"
    if Path("executed").exists():
        return "executed"
    if Path("victim").exists() and Path("victim").read_text() != "somebody's":
        return "wrote to what a link names"
    return None
