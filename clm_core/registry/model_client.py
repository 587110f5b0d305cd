"""MLflow's client for registered models that are no prompts.

The module imports mlflow, which takes seconds; import the module inside functions only.
"""

from mlflow import MlflowClient


class ModelClient(MlflowClient):
    """Client that reads and changes a version without a request for its registered model.

    MLflow keeps prompts for language models among the registered models. Its own client fetches the model
    with all aliases and latest versions before most requests, only to refuse a prompt. The registry refuses
    a prompt when a version is registered.
    """

    def _raise_if_prompt(self, name: str) -> None:
        """Nothing, in place of the request for the registered model."""
