"""Plug-ins of distributions written into a folder on the import path."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clm_core.domain.costs import Costs
from clm_core.domain.errors import (
    BundleCorrupt,
    InvalidPositions,
    InvalidTrainingParams,
    ModelError,
    NotEnoughBars,
    PluginFailed,
    PluginMissing,
)
from clm_core.domain.sizing import Sizing
from clm_core.domain.vocabulary import ModelType
from clm_core.market.bars import Bars
from clm_core.models import catalog, plugins
from clm_core.models.bundle import CARD, MANIFEST, load_bundle, read_card, save_bundle
from clm_core.models.contract import Recipe, require_bars_needed
from clm_core.models.offer import offers

Install = Callable[..., None]
RIDGE = "from clm_ridge.plugin import *\n"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    site = tmp_path / "site"
    site.mkdir()

    def install(distribution: str, plugin: str, code: str, attribute: str = "It") -> None:
        module = distribution.replace("-", "_")
        (site / f"{module}.py").write_text(code)
        metadata = site / f"{module}-2.5.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 2.5\n")
        (metadata / "entry_points.txt").write_text(f"[clm.models]\n{plugin} = {module}:{attribute}\n")
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(sys.modules, module, raising=False)

    return install


def of_plugin(name: str, **params: object) -> Recipe:
    return catalog.recipe(ModelType.OTHER, params, Costs(), plugin=name)


def test_a_plug_in_that_is_not_installed_is_refused_and_installed_plug_ins_are_named() -> None:
    with pytest.raises(PluginMissing, match=r"no plug-in lasso is installed here \(installed: ridge\)"):
        of_plugin("lasso")


def test_a_plug_in_of_release_0_1_0_still_trains_with_a_warning(install: Install, bars: Bars) -> None:
    code = (Path(__file__).parents[2] / "data" / "plugin_of_0_1_0" / "plugin.py").read_text()
    install("clm-earlier", "earlier", code, "RidgePlugin")
    sys.modules.pop("clm_core.models.boosting", None)
    with pytest.warns(DeprecationWarning, match=r"clm_core\.market\.signals\.hold_signals now"):
        earlier = of_plugin("earlier")
    model = earlier.fit(bars, seed=0)
    assert model.positions(bars).tolist() == of_plugin("ridge").fit(bars, seed=0).positions(bars).tolist()


def test_a_plug_in_installed_or_removed_later_counts_at_once(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert plugins.names() == ["ridge"]
    path = list(sys.path)
    install("clm-later", "later", RIDGE)
    monkeypatch.setattr(sys, "path", path)
    assert plugins.names() == ["later", "ridge"]
    shutil.rmtree(tmp_path / "site" / "clm_later-2.5.dist-info")
    assert plugins.names() == ["ridge"]


def test_an_unused_plug_in_is_not_imported(install: Install) -> None:
    install("clm-loud", "loud", "raise SystemExit('imported')")
    assert plugins.names() == ["loud", "ridge"]
    assert of_plugin("ridge").describe()["horizon"] == 24


def test_two_distributions_that_offer_the_same_name_are_both_named(install: Install) -> None:
    install("clm-ridge-two", "ridge", RIDGE)
    with pytest.raises(PluginFailed, match="clm-ridge and clm-ridge-two both offer a plug-in named ridge"):
        of_plugin("ridge")


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        pytest.param("import nonsuch", "ModuleNotFoundError: No module named 'nonsuch'", id="missing module"),
        pytest.param("It = 1 / 0", "ZeroDivisionError", id="error"),
        pytest.param("It = (", "SyntaxError", id="no Python"),
        pytest.param("raise SystemExit(3)", "SystemExit: 3", id="ends the process"),
        pytest.param("", "AttributeError", id="no such class"),
        pytest.param("It = 3", "no class derived from clm_core.models.plugins.Plugin", id="no class"),
        pytest.param("class It: pass", "no class derived from", id="another class"),
        pytest.param(
            "from clm_core.models.plugins import Plugin\nclass It(Plugin): pass",
            "does not define params, library, load, recipe",
            id="half a class",
        ),
        pytest.param(
            RIDGE + "class It(RidgePlugin): library = 'abacus'",
            "needs abacus: pip install abacus",
            id="library",
        ),
        pytest.param(
            RIDGE + "class It(RidgePlugin):\n def __init__(self): raise OSError('no GPU')",
            "failed with OSError: no GPU",
            id="cannot be made",
        ),
    ],
)
def test_an_unusable_plug_in_is_named_with_the_cause_and_does_no_harm_to_another_plug_in(
    install: Install, code: str, cause: str
) -> None:
    install("clm-broken", "broken", code)
    with pytest.raises(PluginFailed, match=cause) as failure:
        of_plugin("broken")
    assert "the plug-in broken of clm-broken 2.5" in str(failure.value)
    listed = {str(offer.kind): offer for offer in offers()}
    assert listed["broken"].problem == str(failure.value)
    assert listed["ridge"].usable


@pytest.mark.parametrize("name", ["xgboost", "ensemble", "Ridge", "ridge-2", "2ridge", "r" * 41])
def test_a_plug_in_name_unfit_for_model_ids_is_refused(install: Install, name: str) -> None:
    install("clm-cuckoo", name, RIDGE, "RidgePlugin")
    with pytest.raises(PluginFailed, match=f"clm-cuckoo names a plug-in '{name}', which is not allowed"):
        of_plugin(name)
    assert str(catalog.recipe(ModelType.XGBOOST, {}, Costs()).model_type) == "xgboost"


def test_a_wrong_parameter_is_refused_in_the_plug_ins_name() -> None:
    with pytest.raises(
        InvalidTrainingParams, match=r"ridge cannot be trained .*speed.* Valid parameters: horizon"
    ):
        of_plugin("ridge", speed=9)


def test_parameters_with_search_ranges_of_a_plug_in_can_be_tuned() -> None:
    assert set(catalog.search_space(ModelType.OTHER, "ridge")) == {"horizon", "threshold", "alpha"}


def test_an_error_of_a_plug_ins_code_names_the_plug_in(install: Install, bars: Bars) -> None:
    install(
        "clm-rough",
        "rough",
        RIDGE
        + "class Rough(RidgeRecipe):\n"
        + "  def fit(self, bars, seed, progress=None): raise KeyError('close')\n"
        + "class It(RidgePlugin):\n"
        + "  def recipe(self, params, costs): return Rough(params)",
    )
    with pytest.raises(
        PluginFailed, match=r"the plug-in rough of clm-rough 2\.5 failed with KeyError: 'close'"
    ):
        of_plugin("rough").fit(bars, seed=0)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        pytest.param(
            "np.full(len(bars), np.nan)", "positions that are not -1 to 1, first nan at row 0", id="NaN"
        ),
        pytest.param("np.full(len(bars), 1.5)", "positions that are not -1 to 1, first 1.5", id="too large"),
        pytest.param("np.zeros(3)", r"positions of shape \(3,\) for 3000 bars", id="too few"),
        pytest.param("['long'] * len(bars)", "failed with ValueError", id="no numbers"),
    ],
)
def test_invalid_positions_and_forecasts_are_refused(
    install: Install, bars: Bars, answer: str, problem: str
) -> None:
    install(
        "clm-wild",
        "wild",
        RIDGE
        + "class Wild(RidgeModel):\n"
        + f"  def positions(self, bars): return {answer}\n"
        + "class Fits(RidgeRecipe):\n"
        + "  def fit(self, bars, seed, progress=None):\n"
        + "    fitted = super().fit(bars, seed)\n"
        + "    return Wild(self.params, fitted.fitted, fitted.trained_on, {})\n"
        + "class It(RidgePlugin):\n"
        + "  def recipe(self, params, costs): return Fits(params)",
    )
    problem = problem.replace("3000", str(len(bars)))
    with pytest.raises((InvalidPositions, PluginFailed), match=problem):
        of_plugin("wild").fit(bars, seed=0).positions(bars)


@pytest.mark.parametrize(
    ("write", "problem"),
    [
        pytest.param("(folder / 'model.pkl').write_bytes(b'')", "wrote model.pkl", id="pickle"),
        pytest.param("(folder / 'weights').mkdir()", "wrote weights", id="folder"),
        pytest.param(
            "(folder / 'x.json').mkdir()", "wrote x.json, which is not a regular file", id="folder.json"
        ),
        pytest.param("(folder / 'x.json').symlink_to('/etc/passwd')", "not a regular file", id="link"),
        pytest.param("(folder / 'manifest.json').write_text('{}')", "wrote manifest.json", id="manifest"),
    ],
)
def test_a_file_not_allowed_in_a_bundle_is_refused_on_saving(
    install: Install, bars: Bars, tmp_path: Path, write: str, problem: str
) -> None:
    install(
        "clm-pickle",
        "pickled",
        RIDGE
        + "class Pickled(RidgeModel):\n"
        + f"  def save(self, folder): {write}\n"
        + "class Fits(RidgeRecipe):\n"
        + "  def fit(self, bars, seed, progress=None):\n"
        + "    fitted = super().fit(bars, seed)\n"
        + "    return Pickled(self.params, fitted.fitted, fitted.trained_on, {})\n"
        + "class It(RidgePlugin):\n"
        + "  def recipe(self, params, costs): return Fits(params)",
    )
    recipe = of_plugin("pickled")
    with pytest.raises(ModelError, match=problem):
        save_bundle(recipe.fit(bars, seed=0), recipe, tmp_path / "bundle", bars)


REMEMBERING = (
    RIDGE
    + "import numpy as np\n"
    + "class Remembers(RidgeModel):\n"
    + "  bars_needed = {stated}\n"
    + "  def positions(self, bars):\n"
    + "    before = np.roll(bars.close, {span})\n"
    + "    before[:{span}] = bars.close[:{span}]\n"
    + "    return np.sign(bars.close - before)\n"
    + "  def forecast(self, bars): return np.full(len(bars), np.nan)\n"
    + "class Fits(RidgeRecipe):\n"
    + "  def fit(self, bars, seed, progress=None):\n"
    + "    fitted = super().fit(bars, seed)\n"
    + "    return Remembers(self.params, fitted.fitted, fitted.trained_on, {{}})\n"
    + "  def describe(self): return {described}\n"
    + "class It(RidgePlugin):\n"
    + "  def recipe(self, params, costs): return Fits(params)\n"
    + "  def load(self, folder, card):\n"
    + "    fitted = super().load(folder, card.model_copy(update={{'params': {{}}}}))\n"
    + "    return Remembers(fitted.params, fitted.fitted, fitted.trained_on, {{}})"
)


@pytest.mark.parametrize(
    ("stated", "described", "needed"),
    [
        pytest.param("400", "{}", 400, id="stated"),
        pytest.param("None", "{'features': ['log_return_72'], 'horizon': 4}", 76, id="derived"),
        pytest.param("None", "{}", 31, id="measured"),
        pytest.param("None", "{'features': ['body'], 'horizon': 2}", 31, id="derived, too few, so measured"),
    ],
)
def test_the_bars_that_a_plug_in_needs_are_stated_derived_or_measured(
    install: Install, bars: Bars, tmp_path: Path, stated: str, described: str, needed: int
) -> None:
    install("clm-remembers", "remembers", REMEMBERING.format(stated=stated, described=described, span=30))
    recipe = of_plugin("remembers", sizing="none")
    digest = save_bundle(recipe.fit(bars, seed=0), recipe, tmp_path / "bundle", bars)
    sized = of_plugin("remembers")
    save_bundle(sized.fit(bars, seed=0), sized, tmp_path / "sized", bars)

    assert read_card(tmp_path / "sized").bars_needed == Sizing().bars_needed(needed)
    assert load_bundle(tmp_path / "sized").bars_needed == Sizing().bars_needed(needed)
    assert read_card(tmp_path / "bundle").bars_needed == needed
    loaded = load_bundle(tmp_path / "bundle", digest)
    assert loaded.bars_needed == needed
    require_bars_needed(loaded, needed, "predict()")
    with pytest.raises(NotEnoughBars, match=f"give predict\\(\\) at least {needed} closed bars; there are 5"):
        require_bars_needed(loaded, 5, "predict()")


@pytest.fixture
def bundle(bars: Bars, tmp_path: Path) -> tuple[Path, str]:
    recipe = of_plugin("ridge")
    folder = tmp_path / "bundle"
    return folder, save_bundle(recipe.fit(bars, seed=0), recipe, folder, bars)


def test_a_bundle_of_a_missing_plug_in_names_the_distribution_to_install(
    bundle: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = read_card(bundle[0]).model_copy(
        update={"plugin": plugins.PluginOrigin(name="lasso", distribution="clm-lasso", version="3.1")}
    )
    with pytest.raises(PluginMissing, match=r"lasso of clm-lasso 3.1: pip install 'clm-lasso==3.1'"):
        catalog.load(bundle[0], elsewhere)


def test_a_namesake_from_another_distribution_does_not_load_a_bundle(
    bundle: tuple[Path, str],
) -> None:
    theirs = read_card(bundle[0]).model_copy(
        update={"plugin": plugins.PluginOrigin(name="ridge", distribution="evil-ridge", version="0.1.0")}
    )
    with pytest.raises(PluginMissing, match=r"Here ridge is the plug-in ridge of clm-ridge 0\.1\.0"):
        catalog.load(bundle[0], theirs)


def test_a_changed_bundle_is_refused_before_the_plug_in_is_imported(bundle: tuple[Path, str]) -> None:
    script = (
        "import sys; from pathlib import Path; from clm_core.models.bundle import load_bundle\n"
        "try: load_bundle(Path(sys.argv[1]), sys.argv[2])\n"
        "except Exception as error: print(type(error).__name__, 'clm_ridge' in sys.modules)"
    )
    (bundle[0] / "ridge.json").write_text("{}")
    ran = subprocess.run([sys.executable, "-c", script, *bundle], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [BundleCorrupt.__name__, "False"]


def test_a_changed_card_does_not_hand_a_bundle_to_another_plug_in(bundle: tuple[Path, str]) -> None:
    card = json.loads((bundle[0] / CARD).read_text())
    card["plugin"]["distribution"] = "evil-ridge"
    (bundle[0] / CARD).write_text(json.dumps(card))
    with pytest.raises(BundleCorrupt, match=f"{CARD} was changed"):
        load_bundle(*bundle)
    assert (bundle[0] / MANIFEST).exists()
