"""Tables of parquet and feather files, read without Arrow's worker threads."""

import io
from typing import TYPE_CHECKING, Any

from clm_core.domain.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
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


def parquet_of(table: "pd.DataFrame") -> bytes:
    """Content of a parquet file with the columns of a table, and its index of times as column `timestamp`.

    Raises:
        DataError: a column has values of several types.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    if isinstance(table.index, pd.DatetimeIndex):
        table = table.rename_axis("timestamp").reset_index()
    content = io.BytesIO()
    try:
        columns = [_column(table.iloc[:, number]) for number in range(table.shape[1])]
        pq.write_table(pa.Table.from_arrays(columns, names=[str(name) for name in table.columns]), content)
    except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError) as error:
        raise DataError(f"The table cannot be read: {error}") from error
    return content.getvalue()


def _column(values: "pd.Series[Any]") -> "pa.Array":
    import pandas as pd
    import pyarrow as pa

    if not isinstance(values.dtype, pd.DatetimeTZDtype):
        return pa.array(values, from_pandas=True)
    # pyarrow takes the values of a column with a zone in a way that pandas 3 gives up
    in_utc = pa.array(values.dt.tz_convert(None).to_numpy())
    return in_utc.cast(pa.timestamp(in_utc.type.unit, tz="UTC"))


def read_feather(content: bytes) -> "pa.Table":
    """Table of the content of a feather file, read as in `read_parquet`.

    Raises:
        pyarrow.ArrowInvalid: the content is no feather file.
    """
    import pyarrow as pa
    from pyarrow import feather

    return feather.read_table(pa.BufferReader(content), use_threads=False)
