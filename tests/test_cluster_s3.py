"""A run in shards whose directory is a bucket of S3, on a server of moto: pip install "moto[server]" s3fs."""

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from .clusters import LONG, At, check_same, kill, trained

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]  # of their libraries


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URL of an empty bucket, which this process and those that it starts find by their environment."""
    moto = pytest.importorskip("moto.server", reason="moto's server is not installed")
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"ENDPOINT_URL": f"http://{host}:{port}", "ACCESS_KEY_ID": "one", "REGION": "us-east-1",
                            "SECRET_ACCESS_KEY": "two"}.items():  # fmt: skip
            patch.setenv(f"AWS_{name}", value)
        s3fs.S3FileSystem().mkdir("bucket")
        yield "s3://bucket"
    server.stop()


def test_a_killed_worker_and_ctrl_c_cost_no_bit(bucket: str, machines: Any, iris: Any) -> None:
    whole, run = trained(iris, None, **LONG), f"{bucket}/run"
    reporters = [At(5, kill), At(20, lambda: signal.raise_signal(signal.SIGINT))]
    with pytest.raises(KeyboardInterrupt):
        trained(iris, 3, run, reporters=reporters, **LONG)
    found = trained(iris, 3, run, **LONG)
    assert [each.number for each in reporters] == [0, 0]
    check_same(whole, found)
    import s3fs

    system = s3fs.S3FileSystem()
    system.invalidate_cache()
    assert "results.parquet" in {name.rpartition("/")[2] for name in system.find("bucket/run")}
