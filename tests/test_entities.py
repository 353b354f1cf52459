"""One network per entity: each has the samples that its name says, its own held-out share and scaling, and its bits."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gpubp
from gpubp.errors import ConfigError, DataError, ShapeError
from gpubp.samples.folds import split

from .helpers import same_bits, samples

SPEC = gpubp.NetworkSpec((3, 5, 2), "tanh")


def data(size: int, **more: Any) -> gpubp.Dataset:
    return gpubp.Dataset(*samples(SPEC, size, dtype=torch.float32), **more)


LABELS = st.one_of(st.sampled_from("abcdé ,"), st.integers(-3, 3), st.booleans(), st.sampled_from([2.0, -1.0]))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3).flatmap(lambda count: st.lists(st.tuples(*[LABELS] * count), min_size=1, max_size=60)),
    st.integers(1, 4),
)
def test_each_sample_is_in_the_entity_that_its_keys_name(rows: list[tuple[Any, ...]], least: int) -> None:
    names = [f"key{number}" for number in range(len(rows[0]))]
    counts = {row: rows.count(row) for row in rows}
    columns = dict(zip(names, (list(column) for column in zip(*rows))))
    if max(counts.values()) < least:
        with pytest.raises(DataError, match=f"fewer than {least} samples"):
            data(len(rows)).by(columns, least, "drop")
        return
    found = data(len(rows)).by(columns, least, "drop")
    assert found.entities.names == tuple(names)
    seen = []
    for name, part in zip(zip(*found.entities.values), found.parts, strict=True):
        assert part.tolist() == [sample for sample, row in enumerate(rows) if row == name]
        seen.append(name)
    assert len(seen) == len({*seen}) == sum(count >= least for count in counts.values())
    assert seen == sorted(seen, key=lambda name: [(isinstance(each, str), each) for each in name])
    assert found.lengths == (min(map(len, found.parts)), max(map(len, found.parts)))
    assert found.entities.positions(list(zip(*rows))).tolist() == [
        seen.index(row) if row in seen else -1 for row in rows
    ]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(2, 40), min_size=1, max_size=12), st.sampled_from([0.25, 0.5]), st.integers(0, 9))
def test_a_share_of_each_entity_is_held_out_as_if_it_were_alone(sizes: list[int], share: float, seed: int) -> None:
    keys = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    train, held_out = data(len(keys)).by(keys).split(share, seed)
    assert train.entities == held_out.entities
    for entity, (mine, theirs) in enumerate(zip(train.parts, held_out.parts, strict=True)):
        own = torch.from_numpy((keys == entity).nonzero()[0])
        rows, left = split(len(own), share, seed)
        assert mine.tolist() == own[rows].tolist()
        assert theirs.tolist() == own[left].tolist()


@pytest.mark.parametrize("engine", ["eager", pytest.param("cpu", marks=pytest.mark.slow)])
def test_an_entitys_network_is_what_it_is_alone(engine: str) -> None:
    sizes = [31, 5, 12, 1, 70]
    keys = np.random.default_rng(1).permutation(np.repeat(["e", "d", "c", "b", "a"], sizes))
    weight = torch.rand(5, len(keys), generator=torch.Generator().manual_seed(0)) + 0.5
    whole = data(len(keys), sample_weight=weight).by({"who": keys})
    population = gpubp.Population.create(SPEC, 5, seed=3)
    config = gpubp.TrainConfig(lr=0.01, batch_size=8, epochs=7)
    result = gpubp.train(population, whole, config, engine=engine)
    assert result.table["who"].to_pylist() == list("abcde")
    for number, name in enumerate(whole.entities.values[0]):
        rows = torch.from_numpy((keys == name).nonzero()[0])
        # rows=, since the batch of networks that share their samples is cut to them
        own = gpubp.Dataset(whole.inputs[rows], whole.targets[rows], [range(len(rows))], weight[number, rows])
        alone = gpubp.train(gpubp.Population.create(SPEC, ids=[number], seed=3), own, config, engine=engine)
        assert same_bits(result.population.params[number], alone.population.params[0])


def test_settings_of_an_entity_name_its_position() -> None:
    keys = [1, 2, 1, 1, 2, 3, 3, 2, 1, 3]
    train, held_out = data(10).by(keys).split(0.4)
    design = [{"lr": lr, "entity": entity, "seed": 7} for entity in (2, 0) for lr in (0.01, 0.1)]
    common = {"widths": "3,5,2", "hidden": "tanh", "steps": 5, "batch_size": 2, "engine": "eager"}
    result = gpubp.train_many(design, train, held_out, **common)  # type: ignore[arg-type]
    assert result.table["entity"].to_pylist() == [3, 3, 1, 1]
    assert "fold" not in result.table.column_names
    for number, row in enumerate(design):
        alone = gpubp.train_many([row], train, held_out, **common)  # type: ignore[arg-type]
        assert same_bits(result.population.params[number], alone.population.params[0])
    with pytest.raises(DataError, match="3: the data have 3, from 0 to 2"):
        gpubp.train_many([{"entity": 3}], train, **common)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="columns fold and entity"):
        gpubp.train_many([{"entity": 1, "fold": 1}], train, **common)  # type: ignore[arg-type]


def test_rows_of_a_design_name_entities_whose_names_are_text(tmp_path: Path) -> None:
    common = {"widths": "3,5,2", "steps": 5, "batch_size": 2, "engine": "eager"}
    train = data(10).by(list("ababbccbac"))
    rows = [{"entity": each, "lr": 0.01} for each in ("c", 0, "b", "2", np.str_("a"))]
    result = gpubp.train_many(rows, train, **common)  # type: ignore[arg-type]
    assert result.table["entity"].to_pylist() == ["c", "a", "b", "c", "a"]
    (tmp_path / "rows.csv").write_text("entity,lr\n" + "".join(f"{row['entity']},0.01\n" for row in rows))
    frame = pd.DataFrame([{**row, "entity": str(row["entity"])} for row in rows])
    frame.to_parquet(tmp_path / "rows.parquet")
    for same in (tmp_path / "rows.csv", tmp_path / "rows.parquet", iter(rows), frame):
        again = gpubp.train_many(same, train, slots=2, **common)  # type: ignore[arg-type]
        assert again.table["entity"].to_pylist() == result.table["entity"].to_pylist()
        assert same_bits(again.loss, result.loss)
    two = data(4).by((list("xyxy"), [1, 1, 2, 2]))
    pairs = [{"entity": ("y", 2)}, {"entity": "x, 1"}, {"entity": 1}]
    found = gpubp.train_many(pairs, two, **common).table  # type: ignore[arg-type]
    assert [*zip(found["entity_0"].to_pylist(), found["entity_1"].to_pylist())] == [("y", 2), ("x", 1), ("x", 2)]
    for entity, told in (
        ("bb", "row 1: entity 'bb'; did you mean 'b'?: a position from 0, or a name of 3 entities (a, b, c), expected"),
        (3, "row 1: entity 3: the data have 3, from 0 to 2"), (-1, "row 1: entity -1: the data have 3, from 0 to 2"),
    ):  # fmt: skip
        for design in ([rows[0], {"entity": entity}], iter([rows[0], {"entity": entity}])):
            with pytest.raises(DataError, match=re.escape(f"design: {told}")):
                gpubp.train_many(design, train, **common)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="design: column 'name' is unknown"):
        gpubp.train_many(pa.table({"name": ["a", None]}), train, **common)  # type: ignore[arg-type]
    with pytest.raises(
        DataError, match=r"row 0: entity 'a': a position from 0, or a name of data.by\(keys\), expected"
    ):
        gpubp.train_many([{"entity": "a"}], data(4), **common)  # type: ignore[arg-type]


def test_keys_are_a_column_columns_or_a_frame() -> None:
    plain = data(4)
    first, second = ["x", "y", "x", "y"], torch.tensor([1, 1, 2, 2])
    named = {name: plain.by(keys).entities for name, keys in {
        "one": first, "array": np.array(first), "two": (first, second), "mapping": {"a": first, "b": second},
    }.items()}  # fmt: skip
    assert {name: each.names for name, each in named.items() if each} == {
        "one": ("entity",), "array": ("entity",), "two": ("entity_0", "entity_1"), "mapping": ("a", "b"),
    }  # fmt: skip
    assert named["one"] == named["array"]
    assert named["two"].values == (("x", "x", "y", "y"), (1, 2, 1, 2))


@pytest.mark.parametrize(
    ("keys", "more", "error", "told"),
    [
        ([1, 2, None, 1], {}, DataError, "key column 'entity' is missing in sample 2"),
        ([1.0, 2.0, float("nan"), 1], {}, DataError, "is missing in sample 2"),
        ([1, 2, 2.5, 1], {}, DataError, "is float 2.5 in sample 2; whole numbers or text expected"),
        (np.zeros((4, 2), int), {}, ShapeError, r"column 'entity' of shape \(4, 2\); a value for each sample expected"),
        (torch.tensor(4), {}, ShapeError, r"key column 'entity' of shape \(\)"),
        ([1, 2, 2], {}, ShapeError, "key column 'entity' has 3 values; one for each of 4 samples expected"),
        ("abcd", {}, ConfigError, "is a str; a value for each sample expected"),
        ({}, {}, ConfigError, "keys: a column of values, or several, expected, got none"),
        ({"a": {1, 2, 3, 4}}, {}, ConfigError, "key column 'a' is a set"),
        ("aabc", {}, ConfigError, "is a str"),
        (list("aabc"), {"min_samples": 0}, ConfigError, "min_samples 0: a whole number of 1 or more"),
        (list("aabc"), {"min_samples": 2}, DataError, r"2 entities \(b, c\) of 3: fewer than 2 samples, 1 or more"),
        (list("aabc"), {"min_samples": 3, "small": "drop"}, DataError, r"3 entities \(a, b, c\) of 3: fewer than 3"),
        (list("aabc"), {"min_samples": 3}, DataError, "samples, 1 or more: min_samples of 2 or fewer expected"),
        (list("aabc"), {"small": "skip"}, ConfigError, "small 'skip' is unknown"),
    ],
)
def test_keys_that_name_no_entities_are_refused(keys: Any, more: dict[str, Any], error: type, told: str) -> None:
    with pytest.raises(error, match=told):
        data(4).by(keys, **more)


def trained(held_out: gpubp.Dataset) -> None:
    train, population = data(4).by(list("aaab")), gpubp.Population.create(SPEC, 2)
    gpubp.train(population, train, gpubp.TrainConfig(steps=1), held_out, engine="eager")


@pytest.mark.parametrize(("divide", "error", "told"), [
    (lambda keys: data(4).by(keys).by(keys), DataError, "already differ between networks"),
    (lambda keys: data(4).by(keys).folds(2), DataError, "already differ between networks"),
    (lambda keys: data(4, sample_weight=torch.ones(3, 4)).by(keys), ShapeError, r"\(3, 4\): the keys name 2 entities"),
    (lambda keys: data(4, sample_weight=[1, 1, 1, 0]).by(keys), DataError, r"0 for all samples of 1 entity \(b\)"),
    (lambda keys: data(4, sample_weight=[1, 1, 1, 0]).folds(4), DataError, "0 for all samples of network 1"),
    (lambda keys: data(4).by(keys).split(0.3), DataError, r"0.3: of 1 entity \(b\) no sample, or every one"),
    (lambda keys: data(4).by(keys).split(1), ConfigError, "validation 1"),
    (lambda keys: data(4).split(0.5), DataError, "the same for all networks"),
    (lambda keys: trained(data(4).by(list("aabc"), 2, "drop")), DataError, "data and validation are of different ent"),
    (lambda keys: trained(data(4).by(list("aaac"))), DataError, "data and validation are of different entities"),
])  # fmt: skip
def test_data_that_differ_and_shares_that_leave_nothing_are_refused(divide: Any, error: type, told: str) -> None:
    with pytest.raises(error, match=told):
        divide(list("aaab"))


def test_a_skewed_table_costs_its_samples_alone() -> None:
    """20,000 entities, one of them with 20,000 samples: padded to the longest they would take 3 GB."""
    keys = np.concatenate([np.zeros(20_000, np.int64), np.arange(1, 20_000)])
    whole = gpubp.Dataset(torch.zeros(len(keys), 1), torch.zeros(len(keys), 1)).by(keys)
    assert whole.lengths == (1, 20_000)
    assert whole.nbytes(20_000) < 64 * len(keys)
    position = torch.tensor([0, 19_999, 5])
    assert whole.row(position, torch.tensor([[7], [0], [0]])).tolist() == [[7], [39_998], [20_004]]


def test_the_data_of_some_networks_are_of_their_entities() -> None:
    whole = data(6).by(list("abcabc"))
    for part in (
        whole.part(slice(1, 3)),
        whole.take(torch.tensor([2, 1])),
        whole.to(torch.device("cpu"), torch.float64),
    ):
        assert [whole.parts["abc".index(name)].tolist() for name in part.entities.values[0]] == [
            rows.tolist() for rows in part.parts
        ]
    assert whole.fingerprint() != data(6).by(list("abdabd")).fingerprint(), "names are part of the data"
