"""MLflow's description of a version, the file `MLmodel`.

The module imports mlflow, which takes seconds; import the module inside functions only.
"""

from typing import IO, Any

import yaml  # type: ignore[import-untyped]
from mlflow.models import Model

_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class ModelFile(Model):
    """Description in the form of MLflow, written by libyaml where PyYAML was built with the library.

    MLflow writes the file twice, with the YAML writer in Python, which takes five times as long.
    """

    def to_yaml(self, stream: IO[str] | None = None) -> Any:
        """Description as YAML; None with a stream, which takes the text."""
        return yaml.dump(self.to_dict(), stream, Dumper=_DUMPER, default_flow_style=False)
