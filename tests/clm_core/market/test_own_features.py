"""Own features of files and distributions: loading, digests, pieces, errors."""

import sys
import textwrap
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from clm_core.domain.errors import FeatureFailed, FeatureMismatch, UnknownFeature
from clm_core.market import own_features
from clm_core.market.bars import Bars
from clm_core.market.features import FEATURES, Stretch, compute_features, memory_of, select_features
from clm_core.market.look_ahead import first_leak
from clm_core.market.own_features import FeatureOrigin
from clm_core.market.sources import MarketData

HEAD = """
import numpy as np
from clm_core.market.own_features import feature
"""
MOMENTUM = """
@feature(warm_up=20)
def momentum_20(bars):
    '''log(close / close 20 bars ago)'''
    values = np.full(len(bars), np.nan)
    values[20:] = np.log(bars.close[20:] / bars.close[:-20])
    return values
"""
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Write]:
    """Writes a file of features, in force until the end of the test."""
    with own_features.use(()):

        def write(code: str, name: str = "mine.py") -> Path:
            path = tmp_path / name
            path.write_text(HEAD + textwrap.dedent(code))
            own_features.use_files([path])
            return path

        yield write


@pytest.fixture(scope="module")
def bundled() -> Bars:
    return MarketData(Path("nothing stored")).bars("BTCUSD", "1h", closed_by=datetime.now(UTC))[-4_000:]


def test_a_feature_of_a_file_is_a_column_after_the_built_in_features(write: Write, bundled: Bars) -> None:
    write(MOMENTUM)

    table = compute_features(bundled, ["momentum_20", "rsi_14", "log_return_4"])

    assert table.names == ("log_return_4", "rsi_14", "momentum_20")
    assert np.isnan(table.values[:20, 2]).all()
    np.testing.assert_array_equal(table.values[20:, 2], np.log(bundled.close[20:] / bundled.close[:-20]))


def test_the_last_bars_give_the_value_of_all_history_to_the_last_bit(write: Write, bundled: Bars) -> None:
    """Also for a running sum, whose rounding depends on the first bar given."""
    write(
        """
        @feature(warm_up=24, memory=40)
        def gap(bars):
            total = np.concatenate([[0.0], np.cumsum(bars.close)])
            mean = np.full(len(bars), np.nan)
            mean[23:] = (total[24:] - total[:-24]) / 24
            return bars.close / mean - 1
        """
    )
    [gap] = select_features(["gap"])
    assert memory_of(["gap", "log_return_1"]) == gap.memory == 40 + 256 - 1
    values = compute_features(bundled, ["gap"]).values[:, 0]

    for last in range(gap.memory, len(bundled), 37):
        window = bundled[last - gap.memory : last + 1]
        assert compute_features(window, ["gap"]).values[-1, 0] == values[last]
    assert first_leak(lambda bars: compute_features(bars, ["gap"]).values, bundled, [1_000, 2_047]) is None


def test_a_function_sees_unbroken_stretches_only(write: Write, walk: Bars) -> None:
    write(
        """
        @feature(warm_up=3)
        def age(bars):
            assert len(set(bars.segments.tolist())) == 1
            return np.arange(len(bars)) * 1.0
        """
    )
    values = compute_features(walk, ["age"]).values[:, 0]

    for stretch in walk.stretches():
        assert np.isnan(values[stretch][:3]).all()
        assert values[stretch][3] == 3.0


def test_hardly_any_bars_give_hardly_any_values_and_no_call(write: Write, walk: Bars) -> None:
    write("@feature(warm_up=20)\ndef f(bars):\n    assert len(bars) > 20\n    return bars.close\n")

    assert np.isnan(compute_features(walk[:20], ["f"]).values).all()
    assert compute_features(walk[:0], ["f"]).values.shape == (0, 1)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        pytest.param(
            "return bars.nonsuch",
            r"the feature f \(mine\.py\) raised AttributeError: .*bars from",
            id="raises",
        ),
        pytest.param(
            "return bars.close[1:]", r"f \(mine\.py\) gives values of shape \(\d+,\) for \d+ bars", id="shape"
        ),
        pytest.param("return 'x'", r"f \(mine\.py\) raised ValueError", id="no number"),
        pytest.param(
            "return bars.close * np.nan", r"no value for the bar of 2\d{3}-.* warm-up of 5", id="NaN"
        ),
        pytest.param("return bars.close / 0", r"an infinite value for the bar of 2\d{3}-", id="infinite"),
        pytest.param("bars.close[0] = 1", r"raised ValueError: .*read-only", id="writes"),
    ],
)
def test_a_bad_answer_names_feature_file_and_bar(code: str, message: str, write: Write, walk: Bars) -> None:
    write(f"@feature(warm_up=5)\ndef f(bars):\n    with np.errstate(all='ignore'):\n        {code}\n")
    with pytest.raises(FeatureFailed, match=message):
        compute_features(walk, ["f"])


@pytest.mark.parametrize(
    ("code", "message"),
    [
        pytest.param(
            "import nonsuch", r"mine\.py cannot be imported \(ModuleNotFoundError", id="missing module"
        ),
        pytest.param("x = (", "SyntaxError", id="no Python"),
        pytest.param("raise SystemExit(3)", "SystemExit: 3", id="ends the process"),
        pytest.param("x = 1", r"mine\.py declares no feature: put @feature\(warm_up", id="no feature"),
        pytest.param("@feature(warm_up=-1)\ndef f(bars): ...", "required are 0 <= warm_up", id="warm-up"),
        pytest.param(
            "@feature(warm_up=9, memory=3)\ndef f(bars): ...", "required are 0 <= warm_up", id="memory"
        ),
        pytest.param("@feature(warm_up=1)\ndef Bad(bars): ...", "'Bad' is no name of a feature", id="name"),
        pytest.param(
            "@feature(warm_up=1)\ndef rsi_14(bars): ...", "has the name of a built-in feature", id="built-in"
        ),
        pytest.param(
            MOMENTUM + "@feature(warm_up=1, name='momentum_20')\ndef f(bars): ...",
            "two own features are called momentum_20: .*function f of mine.py.*Rename one",
            id="twice",
        ),
    ],
)
def test_an_unusable_file_is_named_and_built_in_features_still_work(
    code: str, message: str, write: Write, walk: Bars
) -> None:
    write(code)
    with pytest.raises(FeatureFailed, match=message):
        compute_features(walk, ["momentum_20"])
    assert compute_features(walk, ["rsi_14"]).values.shape == (len(walk), 1)


def test_an_absent_file_is_named_with_the_setting(tmp_path: Path) -> None:
    with (
        own_features.use([tmp_path / "gone.py"]),
        pytest.raises(FeatureFailed, match=r"gone\.py cannot be read .*files"),
    ):
        own_features.table()


def test_a_file_that_everybody_may_write_is_not_run(write: Write) -> None:
    path = write(MOMENTUM)
    path.chmod(0o666)
    own_features.use_files([path])
    with pytest.raises(FeatureFailed, match=r"every user of this machine may write to .*chmod o-w"):
        own_features.load_file(path)


def test_an_unknown_name_is_refused_with_own_features_and_files(write: Write) -> None:
    path = write(MOMENTUM)
    with pytest.raises(
        UnknownFeature, match=rf"called momentum_21\. Choose .*momentum_20\. Files .*{path.name}"
    ):
        select_features(["momentum_21"])


def test_an_edited_file_is_imported_again(write: Write, walk: Bars) -> None:
    write(MOMENTUM)
    before = compute_features(walk, ["momentum_20"]).values
    write(MOMENTUM.replace("np.log(", "-np.log("))
    after = compute_features(walk, ["momentum_20"]).values

    np.testing.assert_array_equal(after, -before)


def test_features_of_a_distribution_are_found_by_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, walk: Bars
) -> None:
    (tmp_path / "clm_momentum.py").write_text(HEAD + MOMENTUM)
    metadata = tmp_path / "clm_momentum-2.5.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: clm-momentum\nVersion: 2.5\n")
    (metadata / "entry_points.txt").write_text("[clm.features]\nmomentum = clm_momentum\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "clm_momentum", raising=False)

    assert compute_features(walk, ["momentum_20"]).names == ("momentum_20",)
    assert str(own_features.table()["momentum_20"].origin) == "the feature momentum_20 (clm-momentum 2.5)"
    missing = FeatureOrigin(name="other", source="clm-momentum 2.6", function="other", digest="0" * 64)
    with pytest.raises(FeatureMismatch, match=r"the feature other .*: pip install 'clm-momentum==2\.6'"):
        own_features.require([missing])


HELPERS = """
SPAN = 20

def shifted(values, span):
    return values[:-span]

def unused():
    return 1

@feature(warm_up=20)
def momentum_20(bars):
    values = np.full(len(bars), np.nan)
    values[SPAN:] = np.log(bars.close[SPAN:] / shifted(bars.close, SPAN))
    return values
"""


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        pytest.param("SPAN = 20", "SPAN = 21", False, id="constant"),
        pytest.param("return values[:-span]", "return values[:-span] + 0", False, id="function it calls"),
        pytest.param("np.log(bars", "np.log2(bars", False, id="itself"),
        pytest.param("warm_up=20", "warm_up=20, memory=30", False, id="memory"),
        pytest.param("import numpy as np", "import numpy.ma as np", False, id="import"),
        pytest.param("return 1", "return 2", True, id="function it does not name"),
        pytest.param("SPAN = 20", "# a comment\n\nSPAN = 20", True, id="comment"),
        pytest.param("(bars):\n", "(bars):\n    '''A docstring.'''\n", True, id="docstring"),
        pytest.param(
            "def unused",
            "@feature(warm_up=1)\ndef other(bars): return bars.close\ndef unused",
            True,
            id="new",
        ),
        pytest.param("SPAN = 20", "SPAN = 20\nnp.seterr(all='ignore')", False, id="statement for all"),
    ],
)
def test_the_digest_covers_what_the_function_names_and_no_more(
    old: str, new: str, same: bool, tmp_path: Path
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(HEAD + HELPERS)
    before = own_features.load_file(path)["momentum_20"].origin
    path.write_text((HEAD + HELPERS).replace(old, new))
    after = own_features.load_file(path)["momentum_20"].origin

    assert (after == before) is same


def test_the_digest_covers_modules_imported_from_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "helper_of_mine.py").write_text("SPAN = 5\n")
    path = tmp_path / "mine.py"
    code = (
        "from helper_of_mine import SPAN\n@feature(warm_up=5)\ndef f(bars):\n    return bars.close * SPAN\n"
    )
    path.write_text(HEAD + code)
    before = own_features.load_file(path)["f"].origin.digest
    (tmp_path / "helper_of_mine.py").write_text("SPAN = 6\n")

    assert own_features.load_file(path)["f"].origin.digest != before


def test_a_bundle_asks_for_its_features_by_name_file_and_digest(write: Write) -> None:
    needed = FeatureOrigin(name="momentum_20", source="mine.py", function="momentum_20", digest="0" * 64)
    with pytest.raises(FeatureMismatch, match=r"momentum_20 \(mine\.py\), which is not installed.*use_files"):
        own_features.require([needed])
    write(MOMENTUM)
    origin = own_features.table()["momentum_20"].origin
    own_features.require([origin])
    with pytest.raises(
        FeatureMismatch, match=r"another source of the feature momentum_20 .*000000000000, and here mine.py"
    ):
        own_features.require([needed])


def test_no_file_is_read_for_built_in_features(tmp_path: Path, walk: Bars) -> None:
    with own_features.use([tmp_path / "gone.py"]):
        assert compute_features(walk).names == tuple(FEATURES)
        assert Stretch(walk).bars is walk
