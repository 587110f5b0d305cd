"""Requirements of a version in MLflow."""

import pytest
from mlflow.utils import environment, requirements_utils

from clm_core.registry.version_files import requirements_as_given


def test_requirements_are_stored_without_a_look_at_all_installed_packages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(requirements_utils, "_MODULES_TO_PACKAGES", None)
    with requirements_as_given():
        _, stored, _ = environment._process_pip_requirements([], ["numpy==0.0"])
    assert "numpy==0.0" in stored
    # MLflow's map of all packages, which takes a second to make
    assert requirements_utils._MODULES_TO_PACKAGES is None
