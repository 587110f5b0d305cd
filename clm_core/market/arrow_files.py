"""Tables of parquet and feather files, read without Arrow's worker threads."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def read_parquet(content: bytes) -> "pa.Table":
    """Table of the content of a parquet file.

    `pyarrow.parquet.read_table` and `pandas.read_parquet` leave a worker thread that releases a Python file
    after the call. A process that ends meanwhile aborts with exit status 134 (apache/arrow issue 50482). A
    buffer of Arrow's own needs no Python, and one thread suffices for the files of a series.

    Raises:
        pyarrow.ArrowInvalid: the content is no parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)


def read_feather(content: bytes) -> "pa.Table":
    """Table of the content of a feather file, read as in `read_parquet`.

    Raises:
        pyarrow.ArrowInvalid: the content is no feather file.
    """
    import pyarrow as pa
    from pyarrow import feather

    return feather.read_table(pa.BufferReader(content), use_threads=False)
