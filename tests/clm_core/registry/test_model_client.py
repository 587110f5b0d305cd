"""The client that leaves out a request of MLflow's own client, and the refusal of prompts in its place."""

from collections.abc import Callable

import pytest

from clm_core.domain.errors import AlreadyExists
from clm_core.domain.versions import ModelVersion
from clm_core.services import Services

MakeVersion = Callable[..., ModelVersion]


def test_a_change_of_a_version_fetches_the_registered_model_with_mlflow_s_client_alone(
    services: Services, make_version: MakeVersion, model_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False after an upgrade of MLflow that asks in another way, or no longer."""
    from mlflow import MlflowClient
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

    version = make_version(model_id)
    fetched = list[str]()
    fetch = SqlAlchemyStore.get_registered_model

    def recording_fetch(store: SqlAlchemyStore, name: str) -> object:
        fetched.append(name)
        return fetch(store, name)

    monkeypatch.setattr(SqlAlchemyStore, "get_registered_model", recording_fetch)
    number = str(version.mlflow_version)
    uri = services.database.url("mlflow")
    for client in (services.registry.client, MlflowClient(uri, uri)):
        client.set_model_version_tag(model_id, number, "clm.test", "1")
        client.set_registered_model_alias(model_id, "tested", number)
        client.get_model_version_download_uri(model_id, number)
        client.delete_registered_model_alias(model_id, "tested")
        expected = 0 if client is services.registry.client else 4
        assert fetched == [model_id] * expected


def test_a_prompt_with_the_name_of_a_model_refuses_the_registration(
    services: Services, make_version: MakeVersion, model_id: str
) -> None:
    services.registry.client.register_prompt(model_id, "Sell {{symbol}}")
    with pytest.raises(AlreadyExists, match=f"prompt of the name {model_id}: delete the prompt"):
        make_version(model_id, in_full=True)
    assert services.registry.aliases(model_id) == {}
