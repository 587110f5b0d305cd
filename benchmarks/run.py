"""Benchmarks against peers: print the table, write RESULTS.md, and fail when a target is missed.

python -m benchmarks.run            all sections, and writes RESULTS.md
python -m benchmarks.run engine     one section, printed only
"""

import platform
import sys
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from os import cpu_count
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.table import HEADINGS, Row, markdown

SECTIONS = (
    "engine",
    "strategy_search",
    "features",
    "gaps",
    "regimes",
    "pools",
    "tree_shap",
    "conformal",
    "overhead",
    "evidence",
    "audit",
    "registry",
    "lock",
    "forecasting",
    "reinforcement",
    "operations",
    "looks",
    "deliveries",
)
PACKAGES = (
    "numpy",
    "numba",
    "pandas",
    "polars",
    "vectorbt",
    "backtesting",
    "jumpmodels",
    "crepes",
    "arch",
    "prefect",
    "mlflow",
    "xgboost",
    "lightgbm",
    "torch",
    "neuralforecast",
    "stable-baselines3",
)
RESULTS = Path(__file__).with_name("RESULTS.md")


def processor() -> str:
    names = Path("/proc/cpuinfo")
    if not names.exists():
        return platform.processor()
    return next(line.split(": ", 1)[1] for line in names.read_text().splitlines() if "model name" in line)


def circumstances() -> str:
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d}, {processor()}, {cpu_count()} cores, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, "
        + ", ".join(f"{package} {version(package)}" for package in PACKAGES)
        + "."
    )


def show(rows: list[Row]) -> None:
    table = Table(*HEADINGS, title="Side by side, medians")
    for row in rows:
        table.add_row(*row.cells(), style=None if row.met else "red")
    Console(width=200 if not sys.stdout.isatty() else None).print(table)


def main(sections: list[str]) -> int:
    rows = [row for name in sections or SECTIONS for row in import_module(f"benchmarks.{name}").rows()]
    show(rows)
    if not sections:
        RESULTS.write_text(
            f"# Benchmarks\n\n`make bench` writes this file. {circumstances()}\n\n{markdown(rows)}"
        )
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
