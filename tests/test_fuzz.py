"""Whatever is in a file, in a run or on a command line, `gpubp` ends with one sentence and its exit status, or does
what was asked: in bounded memory and time, without executing anything, without writing elsewhere.

`pytest -m slow tests/test_fuzz.py` tries 2,000 of each kind; test_run_directories.py compares bits of changed runs."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpubp.verify import promises

from . import fuzzing, no_ray
from .fuzzing import HELD, KINDS, fault, good, of_a_file, of_a_run, of_a_run_in_shards, of_flags

FEW, MANY = 2, 2000  # of each kind
SOURCES = {name: lambda chance, kind=kind: of_a_file(kind, chance) for name, kind in KINDS.items()} | {
    "run": of_a_run,
    "run in shards": of_a_run_in_shards,
    "record of a cluster": no_ray.of_a_record,
    "flags": of_flags,
}


@pytest.fixture(name="place", scope="module")
def a_folder_with_good_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """In `good`; as far as gpubp knows, little memory is free, there is no compiler, and nobody trains on a cluster.
    `gpubp verify` reads what it is to check, and then checks nothing, which takes processes and seconds."""
    place = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpubp.system.free.available", lambda device: HELD)
        patch.setattr(promises, "promises", lambda subject: iter(subject.groups()[:0]))
        no_ray.pretend(patch)
        patch.setenv("CXX", str(place / "no compiler"))
        (place / "good").mkdir()
        patch.chdir(place / "good")
        good()
        yield place


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", SOURCES)
def test_any_file_run_and_flags_end_in_one_sentence_or_as_asked(name: str, count: int, place: Path) -> None:
    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 2**32 - 1))
    def tried(seed: int) -> None:
        with fuzzing.within(place):
            arguments, what = SOURCES[name](random.Random(seed))
            wrong = fault(arguments, place)
        assert wrong is None, f"{what}, gpubp {arguments}: {wrong}"

    tried()
