"""Files that claim or unpack to more than memory holds end in one sentence, before they take it."""

import contextlib
import io
import os
import resource
import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

import gpubp
from gpubp import memory
from gpubp.checkpoints.curves import FILE as CURVES
from gpubp.cli import main
from gpubp.raw import arrow, tables, text
from gpubp.system import free

from .apart import APART
from .commands import Capture, here  # noqa: F401
from .files import status
from .helpers import failing
from .watch import watched

SHORT = ["--networks", "2", "--steps", "2", "--engine", "eager", "--device", "cpu", "--tensorboard", "false"]
HUGE = 500 << 30  # bytes of a sparse file
NAMES = ("preparation.json", "config.yaml", "design.parquet", "report.html", "checkpoint/lock")
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in NAMES]


def said(capsys: Capture, folder: Path, *arguments: str) -> tuple[int, str]:
    """How a command ends that takes little memory, and what it says last."""
    with watched(folder):
        found = status([*arguments])
    return found, (capsys.readouterr().err.splitlines() or [""])[-1]


def header(shape: tuple[int, ...]) -> bytes:
    """The header of an array of float64 in a file of NumPy."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "head"),
    [("inputs", header((1 << 20, 2))), pytest.param("inputs.npy", b"", marks=pytest.mark.slow)],
    ids=["an array", "no array"],
)
def test_a_second_array_of_a_name_is_not_read(name: str, head: bytes, tmp_path: Path, capsys: Capture) -> None:
    """NumPy itself reads `inputs` where there is `inputs.npy` too, of which alone the header was looked at."""
    with zipfile.ZipFile("a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("inputs.npy", header((8, 2)) + bytes(128))
        archive.writestr("targets.npy", header((8,)) + np.arange(8.0).tobytes())
        with warnings.catch_warnings(action="ignore"), archive.open(name, "w") as file:  # of the second one
            file.write(head)
            file.write(bytes(1 << 24))
    found, error = said(capsys, tmp_path, "train", "--data", "a.npz", *SHORT)
    assert (found, error) == (1, "error: a.npz: arrays inputs and inputs mean the same; one of them expected")


def test_an_array_without_the_suffix_is_the_one_whose_header_is_checked(tmp_path: Path) -> None:
    with zipfile.ZipFile("a.npz", "w") as archive:
        archive.writestr("inputs", header((8, 2)) + np.arange(16.0).tobytes())
        archive.writestr("targets.npy", header((8,)) + np.arange(8.0).tobytes())
    assert tables.read("a.npz").columns["inputs[1]"].tolist() == [*np.arange(1.0, 16, 2)]


def test_an_archive_of_very_many_columns_is_refused(tmp_path: Path, capsys: Capture) -> None:
    with zipfile.ZipFile("wide.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("X.npy", header((2, 100_001)) + bytes(1_600_016))
    message = "wide.npz has more than 100,000 columns, the most that are read"
    assert said(capsys, tmp_path, "train", "--data", "wide.npz", *SHORT) == (1, f"error: {message}")


@pytest.mark.parametrize("first", ["", "\r\n\n", '"two\nlines",', '"a""b\n,",'])
def test_a_text_file_of_very_many_columns_is_refused_before_it_is_parsed(
    first: str, tmp_path: Path, capsys: Capture
) -> None:
    Path("a.csv").write_text(first + "," * 300_000 + "y\n" + "1," * 300_000 + "1\n")
    found, error = said(capsys, tmp_path, "train", "--data", "a.csv", "--target", "y", *SHORT)
    assert (found, error) == (1, "error: a.csv has more than 100,000 columns, the most that are read")


def test_a_parquet_file_of_long_texts_is_refused_before_they_are_unpacked(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pyarrow.table({"a": ["x" * 50_000_000], "y": [1]})
    with parquet.ParquetWriter("a.parquet", table.schema, compression="zstd", write_statistics=False) as writer:
        for _ in range(7):
            writer.write_table(table)
    del table
    found, error = said(capsys, tmp_path, "train", "--data", "a.parquet", "--target", "y", *SHORT)
    assert found == 1
    assert "needs 350 MB when unpacked; at most 10,000 times its size expected" in error
    monkeypatch.setattr(free, "COLUMNS", 1_000)
    parquet.write_table(pyarrow.table({str(number): np.zeros(1) for number in range(1_001)}), "wide.parquet")
    message = "wide.parquet has more than 1,000 columns, the most that are read"
    with pytest.raises(tables.DataError, match=message):
        tables.read("wide.parquet")


def flipped(sound: bytes, step: int) -> None:
    """Read a Parquet file with every `step`-th bit of its footer flipped."""
    refused = 0
    for bit in range(8 * (len(sound) - 8 - int.from_bytes(sound[-8:-4], "little")), 8 * len(sound), step):
        changed = bytearray(sound)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            arrow.opened("a.parquet", pyarrow.BufferReader(bytes(changed)), len(changed)).read()
        except (ValueError, OSError, MemoryError, pyarrow.ArrowException):  # ValueError: DataError
            refused += 1
    assert refused


@pytest.mark.parametrize(("column", "step"), [(["x"], 1), ([[2, 3, 1], [4], []] * 4, 9)], ids=["texts", "lists"])
def test_a_flipped_bit_in_the_footer_of_a_parquet_file_ends_no_process(column: list[object], step: int) -> None:
    """As 11 of 1,280 did where pyarrow read the metadata of a column; of some of lists it tells by abort()."""
    made = io.BytesIO()
    parquet.write_table(pyarrow.table({"a": column}), made, store_schema=False)
    child = APART.Process(target=flipped, args=(made.getvalue(), step))
    child.start()
    child.join()
    assert child.exitcode == 0


def test_short_texts_count_as_the_objects_that_they_become(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.csv").write_text("a,b\n" + "x,y\n" * 100_000)
    assert tables.read("a.csv").samples == 100_000
    monkeypatch.setattr(free, "available", lambda device: 5_000_000)
    with pytest.raises(tables.DataError, match=r"a\.csv needs 12\.8 MB when unpacked; 5 MB are free"):
        tables.read("a.csv")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    (folder / "a.csv").write_text("a,y\n" + "1,2\n2,3\n" * 9)
    with contextlib.chdir(folder):
        assert main(["train", "--data", "a.csv", "--target", "y", "--run-dir", "run", *SHORT]) == 0
    return folder


@pytest.mark.parametrize("name", ["x.csv", "x.npz", "x.parquet", "x.onnx", "x.yaml"])
def test_a_sparse_file_larger_than_memory_is_refused_by_its_size(name: str, tmp_path: Path, capsys: Capture) -> None:
    Path(name).touch()
    os.truncate(name, HUGE)
    for flag in ("--data", "--design", "--config"):
        found, error = said(capsys, tmp_path, "train", flag, name, *SHORT)
        assert found in (1, 2)
        assert error.startswith("error: ")
        if flag != "--config" and not name.endswith(("onnx", "yaml")):
            assert f"{name} cannot be read: it holds 537 GB, for which 2.15 TB of memory may be needed; " in error
    found, error = said(capsys, tmp_path, "predict", name, "--data", "a.csv")
    assert (found, error[:7]) == (1, "error: ")


@pytest.mark.parametrize("name", ["checkpoint/manifest.json", "history.jsonl", "results.parquet", CURVES, *SLOW])
def test_a_run_with_a_sparse_file_larger_than_memory_ends_in_a_sentence_or_as_asked(
    name: str, trained: Path, tmp_path: Path, capsys: Capture
) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    for command in ("inspect run", "predict run --data a.csv", "replay run --network 1", "report run", "resume run"):
        Path("run", name).touch()
        os.truncate(Path("run", name), HUGE)
        found, error = said(capsys, tmp_path, *command.split())
        assert found == 0 or (found == 1 and error.startswith("error: ")), (command, found, error)
        if (name, command) == ("checkpoint/manifest.json", "predict run --data a.csv"):
            assert "manifest.json cannot be read: it holds 537 GB, for which 17.2 TB of memory may be needed" in error


def test_memory_that_ends_is_a_sentence(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.csv").write_text("a,y\n1,2\n")
    monkeypatch.setattr(text, "columns", failing(MemoryError))
    assert main(["train", "--data", "a.csv", "--target", "y", *SHORT]) == 1
    assert capsys.readouterr().err.endswith("error: a.csv needs more memory than is free\n")
    monkeypatch.setattr(tables, "read", failing(MemoryError))
    monkeypatch.setattr("gpubp.samples.sources.read", failing(MemoryError))
    assert main(["train", "--data", "a.csv", "--target", "y", *SHORT]) == 1
    assert capsys.readouterr().err.endswith(
        "error: memory has run out; less data, or fewer networks at once, expected\n"
    )


def test_free_memory_is_what_this_process_may_have() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    spec = gpubp.NetworkSpec((3, 4))
    resource.setrlimit(resource.RLIMIT_AS, (held + (1 << 30), before[1]))
    try:
        assert 0 < (free.available(free.HOST) or 0) <= 1 << 30
        told = memory.message(spec, gpubp.TrainConfig(steps=1).recipe(spec), 9, 4, free.HOST)
        assert " are free under ulimit -v, which counts what libraries only reserve: train up to" in told
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize(
    ("member", "files"),
    [
        ("0::/outer/inner", {"memory.max": "max", "memory.current": "9", "memory.stat": "inactive_file 1"}),
        ("1:cpu:/\n0::/outer/none", {}),
        ("3:cpu,memory:/outer", None),
    ],
)
def test_free_memory_is_what_a_container_has_left(
    member: str, files: dict[str, str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = {"memory.max": "5000000", "memory.current": "3000000", "memory.stat": "anon 1\ninactive_file 400000\n"}
    two = {"memory.limit_in_bytes": "5000000", "memory.usage_in_bytes": "3000000"}
    two["memory.stat"] = "total_inactive_file 400000"
    outer = tmp_path / "outer" if files is not None else tmp_path / "memory" / "outer"
    for folder, content in ((outer, two if files is None else one), (outer / "inner", files or {})):
        folder.mkdir(parents=True)
        for name, value in content.items():
            (folder / name).write_text(value)
    (tmp_path / "member").write_text(member)
    monkeypatch.setattr(free, "GROUPS", tmp_path)
    monkeypatch.setattr(free, "MEMBER", tmp_path / "member")
    assert free.available(free.HOST) == 2_400_000


@pytest.mark.parametrize("limit", ["max", "9223372036854771712", None])
def test_free_memory_is_the_machines_where_no_container_has_a_limit(
    limit: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"memory.max": limit, "memory.current": "3", "memory.stat": "inactive_file 0"}.items():
        if limit is not None:
            (tmp_path / name).write_text(str(value))
    (tmp_path / "member").write_text("0::/" if limit is not None else "")
    monkeypatch.setattr(free, "GROUPS", tmp_path)
    monkeypatch.setattr(free, "MEMBER", tmp_path / "member")
    found = free.available(free.HOST)
    assert found is not None, "the system says"
    assert found > 5_000_000
