import json
from pathlib import Path
from typing import ClassVar

import pytest
from clm_ridge.plugin import FILE

from clm_core.domain.errors import BundleCorrupt, InvalidTrainingParams
from clm_core.models.bundle import load_bundle, read_card
from clm_core.models.plugins import find
from clm_core.testing.contract import Fitted, ModelContract, recipe_of


class TestRidge(ModelContract):
    cases: ClassVar = {"ridge": {"horizon": 6, "threshold": 0.01, "alpha": 50.0}}

    walks: ClassVar = tuple((standstill, horizon) for standstill in (0.0, 0.5, 0.8) for horizon in (1, 24))

    def test_the_card_names_the_plug_in_and_the_libraries(self, bundle: tuple[Path, str]) -> None:
        card = read_card(bundle[0])
        assert str(card.plugin) == "the plug-in ridge of clm-ridge 0.1.0"
        assert card.libraries.keys() >= {"clm-ridge", "scikit-learn", "continuous-learning-manager"}

    def test_a_stronger_penalty_draws_the_forecast_to_one_half(self, fitted: Fitted, bars) -> None:
        tamed = recipe_of("ridge", {**fitted.params, "alpha": 1e6}).fit(bars, seed=0)
        assert abs(tamed.forecast(bars)[-1] - 0.5) < abs(fitted.model.forecast(bars)[-1] - 0.5)

    @pytest.mark.parametrize(
        "content",
        [
            pytest.param("not JSON", id="no JSON"),
            pytest.param('{"intercept": NaN, "coefficients": [], "means": [], "deviations": []}', id="NaN"),
            pytest.param('{"intercept": 0.0, "coefficients": [], "means": [], "deviations": []}', id="size"),
        ],
    )
    def test_invalid_coefficients_are_refused(
        self, bundle: tuple[Path, str], tmp_path: Path, content: str
    ) -> None:
        card = read_card(bundle[0])
        (tmp_path / FILE).write_text(content)
        with pytest.raises(BundleCorrupt, match=FILE):
            find("ridge").load(tmp_path, card)

    def test_a_file_changed_on_disk_is_refused_before_the_plug_in_reads_the_file(
        self, bundle: tuple[Path, str]
    ) -> None:
        path = bundle[0] / FILE
        changed = json.loads(path.read_text()) | {"intercept": 0.3}
        path.write_text(json.dumps(changed))
        with pytest.raises(BundleCorrupt, match=f"{FILE} was changed"):
            load_bundle(*bundle)


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        pytest.param({"alpha": 0}, "alpha", id="out of range"),
        pytest.param({"depth": 3}, "Valid parameters: horizon, threshold, alpha, features", id="unknown"),
        pytest.param({"features": "moon_phase"}, "moon_phase", id="no such feature"),
    ],
)
def test_invalid_parameters_are_refused_by_name(params: dict[str, object], problem: str) -> None:
    with pytest.raises(InvalidTrainingParams, match=f"ridge cannot be trained.*{problem}"):
        recipe_of("ridge", params)
