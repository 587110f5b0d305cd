"""Files of a version in MLflow: written by MLflow, and repeated for the next versions of the same form.

For each version MLflow runs the serving code, examines the example, looks up the versions of its own packages
and copies the bundle twice: 20 ms of processor time. The environment, the serving code and the flavor are the
same for the same requirements: a process keeps the three from the second version of a form on. A process with
a single version, such as the fork of a retrain, keeps nothing and pays nothing for the comparison.
"""

import contextlib
import copy
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clm_core.registry import integrity, version_example

if TYPE_CHECKING:
    from mlflow.models import Model, ModelSignature

_FLAVOR = "python_function"
_ARTIFACTS = "artifacts"
_DESCRIPTION = "MLmodel"
_ENVIRONMENT = {"conda.yaml", "python_env.yaml", "requirements.txt"}
_PROJECT = ("uv.lock", "pyproject.toml")
"""Files of the working folder that MLflow copies into a version where both exist."""
MAX_FORMS = 32
"""Maximum number of forms kept by a process."""


@dataclass(frozen=True)
class VersionParts:
    """Parts of a version in MLflow's flavor `pyfunc`."""

    description: "Model"
    """MLflow's description, completed while the files are written."""
    code: Path
    """Serving code."""
    bundle: Path
    name: str
    """Name of the bundle among the artifacts."""
    config: Mapping[str, str]
    """Configuration of the serving code."""
    example: Any
    """Table accepted by a prediction; see `version_example`."""
    signature: "ModelSignature"
    requirements: Sequence[str]


@dataclass(frozen=True)
class _Form:
    """Part of a stored version shared with the next versions."""

    flavor: Mapping[str, Any]
    info: Mapping[str, str]
    """MLflow's names of the files of the example."""
    files: Mapping[str, bytes]
    """Environment and serving code by the name of the file."""
    counted: int
    """Bytes of the files counted by MLflow in the size of a version."""


_written: set[str] = set()
"""Keys of the versions written by this process."""
_forms: dict[str, _Form | None] = {}
"""Forms of versions written twice; None where a repetition would differ."""


def save(folder: Path, parts: VersionParts) -> None:
    """Write the files of a version.

    Args:
        folder: created by the call.
    """
    if not (version_example.can_be_completed(parts.example) and integrity.has_plain_files_only(parts.bundle)):
        _save(folder, parts, parts.example)
        return
    key = _key(parts)
    form = _forms.get(key)
    if form is not None:
        _repeat(folder, parts, form)
        return
    _save(folder, parts, parts.example.tail(1))
    info: Any = parts.description.saved_input_example_info
    one_row = version_example.size(folder, info)
    if not version_example.complete(folder, info, parts.example):
        # written in another form by another release of MLflow
        shutil.rmtree(folder)
        _save(folder, parts, parts.example)
        return
    if key in _written and key not in _forms:
        form = _form_of(folder, parts, info, one_row)
        _forms[key] = form if _is_repeated_exactly(folder, parts, form) else None
    if len(_written) < MAX_FORMS:
        _written.add(key)


def _save(folder: Path, parts: VersionParts, example: Any) -> None:
    from mlflow import pyfunc

    with requirements_as_given():
        pyfunc.save_model(
            path=str(folder),
            mlflow_model=parts.description,
            python_model=parts.code,
            artifacts={parts.name: str(parts.bundle)},
            model_config=dict(parts.config),
            input_example=example,
            signature=parts.signature,
            pip_requirements=list(parts.requirements),
        )


def _key(parts: VersionParts) -> str:
    """Text equal for versions of the same form."""
    code = [str(parts.code), parts.code.read_text(), parts.name, parts.bundle.name]
    project = all(Path(name).exists() for name in _PROJECT)
    columns = [(name, str(kind)) for name, kind in parts.example.dtypes.items()]
    signature = parts.signature.to_dict()
    return json.dumps([code, project, list(parts.requirements), signature, columns])


def _form_of(folder: Path, parts: VersionParts, info: Mapping[str, str], one_row: int) -> _Form:
    """Form of a version written by MLflow.

    Args:
        info: MLflow's names of the files of the example.
        one_row: bytes of the example with a single row.
    """
    description = parts.description
    kept = [folder / name for name in (*_ENVIRONMENT, parts.code.name)]
    return _Form(
        flavor=copy.deepcopy(description.flavors[_FLAVOR]),
        info=dict(info),
        files={file.name: file.read_bytes() for file in kept if file.is_file()},
        counted=(description.model_size_bytes or 0) - one_row - _size(parts.bundle),
    )


def _is_repeated_exactly(folder: Path, parts: VersionParts, form: _Form) -> bool:
    """True if a repetition of a version has the same files with the same content."""
    description = type(parts.description).from_dict(parts.description.to_dict())
    description.flavors = {}
    with tempfile.TemporaryDirectory() as other:
        copied = Path(other, "model")
        _repeat(copied, replace(parts, description=description), form)
        return _contents(copied) == _contents(folder)


def _repeat(folder: Path, parts: VersionParts, form: _Form) -> None:
    """Write a version in the form of a version before."""
    description = parts.description
    bundle = folder / _ARTIFACTS / parts.bundle.name
    shutil.copytree(parts.bundle, bundle)
    for name, content in form.files.items():
        (folder / name).write_bytes(content)
    one_row = version_example.write(folder, form.info, parts.example)
    description.signature = parts.signature
    description.saved_input_example_info = dict(form.info)
    stored = {parts.name: {"path": f"{_ARTIFACTS}/{bundle.name}", "uri": str(parts.bundle)}}
    own = {"config": dict(parts.config), _ARTIFACTS: stored}
    description.add_flavor(_FLAVOR, **copy.deepcopy(dict(form.flavor)) | own)
    description.model_size_bytes = form.counted + one_row + _size(bundle)
    description.save(str(folder / _DESCRIPTION))


def _size(folder: Path) -> int:
    """Bytes of all files of a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _contents(folder: Path) -> dict[Path, bytes]:
    """Content of all files by the path in a folder."""
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@contextlib.contextmanager
def requirements_as_given() -> Iterator[None]:
    """Keep MLflow from comparing requirements with the installed versions.

    The requirements are the installed versions. For the comparison MLflow reads the metadata of all packages,
    a second of processor time.
    """
    environment: Any = import_module("mlflow.utils.environment")
    before = environment.warn_dependency_requirement_mismatches
    environment.warn_dependency_requirement_mismatches = lambda requirements: None
    try:
        yield
    finally:
        environment.warn_dependency_requirement_mismatches = before
