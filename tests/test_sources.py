"""sources.py: data by name, and how they are split."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_digits

from gpubp.errors import ConfigError, DataError
from gpubp.samples import bundled
from gpubp.samples.folds import split
from gpubp.samples.sources import SOURCES, load_data

from .apart import status
from .files import refused


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_is_ready_for_its_loss(name: str) -> None:
    data = load_data(name)
    assert data.name == name
    assert data.loss == SOURCES[name].loss
    assert data.training.inputs.dtype == torch.float64
    assert data.training.inputs.shape == (data.sizes[0], data.widths_in)
    classes = data.loss == "cross_entropy"
    assert data.training.targets.shape == ((data.sizes[0],) if classes else (data.sizes[0], data.widths_out))
    assert data.training.targets.dtype == (torch.int64 if classes else torch.float64)
    assert (data.validation is None) == (data.sizes[1] == 0) == (SOURCES[name].validation == 0)
    assert len(data.fingerprint) == 64
    assert data.fingerprint == load_data(name, seed=1).fingerprint


def test_the_smallest_sources_never_change() -> None:
    tutorial, xor, spirals = (load_data(name, validation=0) for name in ("tutorial", "xor", "spirals"))
    assert tutorial.training.inputs.tolist() == [[0.05, 0.10]]
    assert tutorial.training.targets.tolist() == [[0.01, 0.99]]
    assert xor.training.inputs.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert xor.training.targets.tolist() == [[0], [1], [1], [0]]
    assert spirals.fingerprint == "8dfa4bb6209ac6275f99f58d7f4d48ac383e5a331bb009d93e335ad22a7bd339"
    assert spirals.training.inputs.abs().max() < 1.1


def test_digits_are_divided_by_16() -> None:
    raw = load_digits()
    data = load_data("digits", validation=0).training
    assert torch.equal(data.inputs, torch.from_numpy(raw.data / 16))
    assert data.targets.tolist() == raw.target.tolist()


def test_diabetes_has_targets_of_variance_one_that_decode_to_the_raw_ones() -> None:
    data = load_data("diabetes", validation=0)
    torch.testing.assert_close(data.training.targets.var(0, correction=0), torch.ones(1, dtype=torch.float64))
    assert data.preparation.columns[0].name == "age"
    assert 48 < data.preparation.columns[0].offset < 49  # years, not what scikit-learn makes of them
    raw = load_diabetes().target
    np.testing.assert_allclose(data.preparation.decode(data.training.targets)[:, 0], raw, rtol=1e-12)
    assert load_data("diabetes", loss="huber").preparation.target_columns[0].factor > 50
    assert load_data("diabetes", loss="poisson").training.targets.min() >= 25


@pytest.mark.parametrize("name", bundled.INPUTS)
def test_bundled_data_are_what_scikit_learn_loads(name: str) -> None:
    asked, read = bundled._imported(name), bundled.columns(name)
    assert list(read) == list(asked)
    for column, values in asked.items():
        assert read[column].dtype == values.dtype
        assert read[column].tobytes() == values.tobytes(), column


def test_bundled_data_do_not_wait_for_scikit_learn() -> None:
    code = "from gpubp.samples import bundled; [*map(bundled.columns, bundled.INPUTS)]"
    assert status(f"{code}; import sys; assert 'sklearn' not in sys.modules") == 0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of scikit-learn's files, without any; an import of it finds one column."""
    monkeypatch.setattr(bundled, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=[str(tmp_path)]))
    monkeypatch.setattr(bundled, "_imported", lambda name: {"asked": np.array([name])})
    found = tmp_path / "datasets" / "data"
    found.mkdir(parents=True)
    return found


@pytest.mark.parametrize(
    "text",
    [None, "", "5.1,3.5,1.4,0.2,0\n" * 150, "1,4,setosa\n1,2,3,4,0\n", "150,4,setosa\n" + "1,2,3,4,0\n" * 149,
     "150,4,setosa\n" + "1,2,3,4,1\n" * 150, "150,4,setosa\n" + "1,2,3,long,0\n" * 150],
    ids=["no file", "nothing", "no header", "another table", "a row too few", "another class", "no numbers"],
)  # fmt: skip
def test_scikit_learn_is_imported_if_its_files_differ(text: str | None, folder: Path) -> None:
    if text is not None:
        (folder / "iris.csv").write_text(text)
    assert list(bundled.columns("iris")) == ["asked"]


def test_scikit_learn_is_imported_if_numbers_of_targets_and_inputs_differ(folder: Path) -> None:
    np.savetxt(folder / "diabetes_data_raw.csv.gz", np.ones((442, 10)))
    for targets, columns in ((442, 11), (441, 1)):
        np.savetxt(folder / "diabetes_target.csv.gz", np.ones(targets))
        assert len(bundled.columns("diabetes")) == columns


def test_without_scikit_learn_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "find_spec", lambda name: None)
    with refused("data 'iris': scikit-learn is not installed; pip install \"gpubp[data]\""):
        load_data("iris")


def test_an_unknown_name_gets_the_nearest_one_and_hears_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "churn.csv").touch()
    with refused("data 'churn' is unknown; did you mean 'churn.csv'?; allowed: breast_cancer, churn.csv, "):
        load_data("churn")
    with refused("data 'digts' is unknown; did you mean 'digits'?; allowed: breast_cancer, "):
        load_data("digts")
    with refused("or a file that ends in .csv, .tsv, .npz, .parquet"):
        load_data("digts")


def test_a_source_has_fixed_targets() -> None:
    with pytest.raises(ConfigError, match="target o1: only for files; data 'tutorial' need none"):
        load_data("tutorial", target="o1")


# --- the split


def test_the_split_is_the_same_for_ever_and_has_every_sample_in_one_part() -> None:
    for seed, parts in ((0, [[1, 3, 4, 5, 6, 7, 8], [0, 2, 9]]), (1, [[1, 2, 4, 5, 6, 7, 9], [0, 3, 8]])):
        assert [part.tolist() for part in split(10, 0.3, seed)] == parts
    rows, held_out = split(1001, 0.25, 7)
    assert len(held_out) == 250
    assert torch.equal(torch.cat((rows, held_out)).sort().values, torch.arange(1001))
    assert [part.tolist() for part in split(3, 0, 0)] == [[0, 1, 2], []], "a share of zero holds nothing out"


@pytest.mark.parametrize(
    ("count", "share", "seed", "message"),
    [
        *(
            (count, share, 0, f"validation {share:g} of {count} sample{'s' * (count > 1)}: ")
            for count, share in ((2, 0.2), (1, 0.5), (3, 0.9))
        ),
        *((10, share, 0, "a share from 0 to below 1 expected") for share in (1, -0.1, True, float("nan"), "0.2")),
        (10, 0.2, -1, "seed -1"),
    ],
)
def test_a_split_that_cannot_be_is_refused(count: int, share: Any, seed: int, message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        split(count, share, seed)
