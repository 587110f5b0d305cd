"""A recipe in production over successive versions: each version on the bars served.

The positions of a former version never change, and reading many bundles takes seconds. So the positions are
kept in a file for each model, and positions missing there are computed again from the bundle.
"""

import contextlib
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clm_core.domain.errors import CLMError
from clm_core.domain.promotions import Succession
from clm_core.market.bars import Bars, Floats

FOLDER = "served"
Positions = Mapping[str, Floats]
"""Positions on the bars served, by symbol."""


@dataclass(frozen=True, eq=False)
class ServedMarket:
    """A market of the version in production."""

    bars: Bars
    """All closed bars."""
    first_new: int
    """First row after the training of the version."""
    positions: Floats
    """Positions of the version on the bars from `first_new` on, shape (n_new_bars,)."""


@dataclass(frozen=True)
class ServedRows:
    """Rows of each market served by a former version: from the first on, up to the last, exclusive."""

    version: str
    rows: Mapping[str, tuple[int, int]]
    """First and last row by symbol."""

    def key(self, bars: Bars) -> str:
        first, last = self.rows[bars.symbol]
        return f"{self.version}_{bars.symbol}_{bars.time[first]}_{bars.time[last - 1]}"


def held_since(
    folder: Path,
    model_id: str,
    succession: Succession,
    markets: Sequence[ServedMarket],
    positions_of: Callable[[ServedRows], Positions],
) -> list[tuple[Bars, Floats]]:
    """Bars of each market since the recipe came into production, and the positions held on them.

    The record begins later, after the last version whose positions can no longer be computed.

    Args:
        folder: home.
        markets: markets of the version in production.
        positions_of: computes the positions of a former version on rows of the markets; raises CLMError.
    """
    own = {
        each.bars.symbol: max(each.first_new, each.bars.row_closed_after(succession.begun[-1]))
        for each in markets
    }
    first = dict(own)
    parts: dict[str, list[Floats]] = {
        each.bars.symbol: [each.positions[own[each.bars.symbol] - each.first_new :]] for each in markets
    }
    with _kept(folder / FOLDER / f"{model_id}.npz") as kept:
        for stint in _stints(succession, markets):
            if any(last != first[symbol] for symbol, (_, last) in stint.rows.items()):
                break
            try:
                held = kept.positions(stint, markets, positions_of)
            except CLMError:
                # perhaps for a while: positions of older versions may be nowhere else
                kept.keep_all()
                break
            for symbol, (begin, _) in stint.rows.items():
                first[symbol] = begin
                parts[symbol].append(held[symbol])
    return [
        (each.bars[first[each.bars.symbol] :], np.concatenate(parts[each.bars.symbol][::-1]))
        for each in markets
    ]


def _stints(succession: Succession, markets: Sequence[ServedMarket]) -> Iterator[ServedRows]:
    """Rows of the former versions, the newest version first."""
    former = zip(succession.versions[:-1], succession.begun[:-1], succession.begun[1:], strict=True)
    for version, begun, ended in reversed(list(former)):
        rows = {
            each.bars.symbol: (each.bars.row_closed_after(begun), each.bars.row_closed_after(ended))
            for each in markets
        }
        yield ServedRows(version, rows)


class _Kept:
    """Positions of former versions, read from a file."""

    def __init__(self, known: Mapping[str, Floats]) -> None:
        self._known = known
        self.used = dict[str, Floats]()

    def keep_all(self) -> None:
        """Keep the positions that were not asked for, too."""
        self.used = {**self._known, **self.used}

    def positions(
        self,
        stint: ServedRows,
        markets: Sequence[ServedMarket],
        positions_of: Callable[[ServedRows], Positions],
    ) -> Positions:
        """
        Raises:
            CLMError: the positions are not kept, and cannot be computed.
        """
        served = [
            each.bars for each in markets if stint.rows[each.bars.symbol][0] < stint.rows[each.bars.symbol][1]
        ]
        keys = {bars.symbol: stint.key(bars) for bars in served}
        if not all(key in self._known for key in keys.values()):
            computed = positions_of(stint)
            self._known = {**self._known, **{key: computed[symbol] for symbol, key in keys.items()}}
        by_symbol = {symbol: self._known[key] for symbol, key in keys.items()}
        self.used |= {keys[symbol]: by_symbol[symbol] for symbol in by_symbol}
        return {each.bars.symbol: by_symbol.get(each.bars.symbol, np.empty(0)) for each in markets}


@contextlib.contextmanager
def _kept(file: Path) -> Iterator[_Kept]:
    """The positions in a file. Unused positions are dropped from the file, computed ones are added."""
    known = _read(file)
    kept = _Kept(known)
    yield kept
    if kept.used.keys() != known.keys():
        _write(file, kept.used)


def _read(file: Path) -> dict[str, Floats]:
    """Content of the file; nothing for a missing or damaged file: everything is computed anew."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return {}


def _write(file: Path, content: Mapping[str, Floats]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".unfinished", delete=False) as unfinished:
        np.savez(unfinished, **content)  # type: ignore[arg-type]
    Path(unfinished.name).replace(file)
