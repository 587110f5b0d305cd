"""Reading of parquet and feather files: values, and no Arrow worker that outlives a read."""

import io
import subprocess
import sys

import pandas as pd
import pytest

from clm_core.domain.errors import DataError
from clm_core.market.arrow_files import parquet_of, read_feather, read_parquet

TABLE = pd.DataFrame({"time": pd.date_range("2024-01-01", periods=3, tz="UTC"), "close": [1.0, 2.0, 3.0]})
READ_AND_COUNT = """
import sys
from pathlib import Path
import pyarrow.feather, pyarrow.parquet
from clm_core.market.arrow_files import read_feather, read_parquet

def threads():
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    return len([name for name in names if name != "jemalloc_bg_thd"])

before = threads()
{"read_parquet": read_parquet, "read_feather": read_feather}[sys.argv[1]](sys.stdin.buffer.read())
print(threads() - before)
"""


def content(kind: str) -> bytes:
    sink = io.BytesIO()
    (TABLE.to_parquet if kind == "read_parquet" else TABLE.to_feather)(sink)
    return sink.getvalue()


@pytest.mark.parametrize("read", [read_parquet, read_feather])
def test_the_table_read_is_the_table_written(read) -> None:
    pd.testing.assert_frame_equal(read(content(read.__name__)).to_pandas(), TABLE)


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
@pytest.mark.parametrize("kind", ["read_parquet", "read_feather"])
def test_a_read_starts_no_worker_thread(kind) -> None:
    command = [sys.executable, "-c", READ_AND_COUNT, kind]
    answer = subprocess.run(command, input=content(kind), capture_output=True, check=True)
    assert answer.stdout.strip() == b"0"


def test_a_table_keeps_its_times_in_utc_and_refuses_a_column_of_several_types() -> None:
    times = pd.date_range("2024-03-31", periods=3, freq="h", tz="Europe/Athens", name="opened")
    table = pd.DataFrame({"close": [1.0, 2.0, 3.0]}, index=times)
    columns = read_parquet(parquet_of(table)).to_pydict()
    assert columns["timestamp"] == [each.to_pydatetime() for each in times.tz_convert("UTC")]
    with pytest.raises(DataError, match="The table cannot be read"):
        parquet_of(table.assign(close=[1.0, "two", 3.0]))
