"""A forked process, whose parent had threads, trains and predicts to the parent's bits; a GPU is refused there."""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import gpubp
from gpubp.errors import DeviceError
from gpubp.system import gpus, lock
from gpubp.system.devices import automatic

from .apart import status
from .helpers import FAST

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
ROOT = Path(__file__).resolve().parent.parent

USES = """
import hashlib, json, multiprocessing, os, signal, sys, uuid
import torch
import gpubp
from gpubp.engines import build, cpu

build.FLAGS += tuple(sys.argv[2:])  # or compiling takes seconds

def ends():
    signal.alarm(100)  # whoever waits without end

ends()
os.register_at_fork(after_in_child=ends)
torch.set_num_threads(2)
ENGINES, FOLDER = ("cpu", "eager"), sys.argv[1]
many = torch.rand(20_000, 2, generator=torch.Generator().manual_seed(1))

def job(engine):
    data, run_dir = gpubp.load_data("xor"), f"{FOLDER}/{uuid.uuid4()}"
    spec = gpubp.NetworkSpec((2, 16, 1), hidden="tanh", loss=data.loss)
    config = gpubp.TrainConfig(lr=0.01, steps=6)
    result = gpubp.train(
        gpubp.Population.create(spec, 1000), data.training, config, data.validation, engine=engine, run_dir=run_dir
    )
    model = gpubp.load(run_dir)
    found = [result.population.params, result.loss, torch.tensor(model.predict_proba(many, networks=3))]
    digest = hashlib.sha256(b"".join(each.numpy().tobytes() for each in found)).hexdigest()
    return [digest, gpubp.resume(run_dir, data.training, data.validation, steps=8).loss.tolist()[:3]]

def jobs():
    return [job(engine) for engine in ENGINES]

def server(work):
    here, there = os.pipe()  # a worker of a server that has loaded and warmed its model
    if not os.fork():
        os.write(there, json.dumps(work()).encode())
        os._exit(0)
    os.close(there)
    return json.load(os.fdopen(here))

def threads():
    data, config = gpubp.Dataset(many, many), gpubp.TrainConfig(steps=1)
    found = gpubp.train(gpubp.Population.create(gpubp.NetworkSpec((2, 2)), 1), data, config, engine="eager")
    return [torch.get_num_threads(), str(found.notes)]

def kernel_threads():
    cpu.thread_count = lambda *given: 2
    return job("cpu")

print(json.dumps(["parent", jobs()]), flush=True)
fork = multiprocessing.get_context("fork")
with fork.Pool(1) as pool:
    print(json.dumps(["pool", pool.map(job, ENGINES)]), flush=True)
    print(json.dumps(["kernel threads", [pool.apply(kernel_threads)]]), flush=True)
print(json.dumps(["server", server(lambda: [job("cpu")])]), flush=True)
print(json.dumps(["parent again", [job("cpu")]]), flush=True)
print(json.dumps(["threads", [server(threads), threads()]]), flush=True)
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    command = [sys.executable, "-c", USES, str(tmp_path_factory.mktemp("forks")), *FAST]
    calm = {**os.environ, "GOMP_SPINCOUNT": "0"}  # threads that spin take the time of those that work
    done = subprocess.run(command, cwd=ROOT, env=calm, capture_output=True, text=True, timeout=240)
    return dict(json.loads(each) for each in done.stdout.splitlines()) | {"stderr": [done.stderr[-2000:]]}


@pytest.mark.parametrize("use", ["pool", "kernel threads", "server", "parent again"])
def test_a_forked_process_trains_predicts_and_resumes_to_the_parents_bits(
    use: str, found: dict[str, list[Any]]
) -> None:
    assert use in found, found["stderr"]
    assert found[use] == found["parent"][: len(found[use])]


def test_a_forked_process_has_one_torch_thread_and_says_how_to_have_more(found: dict[str, list[Any]]) -> None:
    (child, told), (parent, notes) = found["threads"]
    assert (child, parent) == (1, 2)
    assert "training uses one thread, because this process was forked; for more, start processes by " in told
    assert 'multiprocessing.get_context("spawn")' in told
    assert "forked" not in notes


def test_a_process_forked_from_one_that_used_cuda_is_refused_a_gpu_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True, raising=False)
    advice = r'forked from one that used CUDA, .*: start processes by multiprocessing.get_context\("spawn"\)'
    for device in ("cuda", "cuda:0", "cuda:all"):
        inputs = torch.rand(9, 2)
        data, config = gpubp.Dataset(inputs, inputs), gpubp.TrainConfig(steps=1)
        with pytest.raises(DeviceError, match=advice):
            gpubp.train(gpubp.Population.create(gpubp.NetworkSpec((2, 2)), 1), data, config, device=device)
    assert automatic()[1].startswith("device cpu: this process was forked")
    assert gpus.missing() is not None


@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # of JAX, where a peer of the benchmarks has loaded it
@pytest.mark.parametrize("killed", [False, True])
def test_a_forked_process_does_not_hold_the_lock_of_its_parents_run(killed: bool, tmp_path: Path) -> None:
    lock.file(tmp_path).parent.mkdir()
    waits, go = os.pipe()  # until the test is over
    ready, say = os.pipe()
    holder = os.fork()
    if not holder:
        with lock.held(tmp_path):
            fork = os.fork if killed else ctypes.PyDLL(None).fork  # the second is C's, which Python hears nothing of
            if not fork():
                os.close(go)
                os.write(say, b"!" * killed)
                os.read(waits, 1)
                os._exit(0)
            if killed:
                os.read(ready, 1)
                os._exit(0)
        os._exit(0)
    os.waitpid(holder, 0)
    with lock.held(tmp_path) as notes:
        assert notes == []
    os.close(go)


COMPILES = """
import os
from concurrent.futures import Future
from gpubp.engines import build

build.COMPILING["a kernel"] = Future()
if not (child := os.fork()):
    os._exit(len(build.COMPILING))
assert os.waitpid(child, 0)[1] == 0
"""


def test_a_forked_process_waits_for_no_compilation_of_its_parent() -> None:
    assert status(COMPILES) == 0
