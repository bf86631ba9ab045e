"""Decide which registered version is the one to deploy."""

import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from leanface.tracking.names import CHAMPION, MADE_TAG, MODEL_TAG, NETWORK_TAG, RECORD_TAG, SUMMARY_TAG, registered_name
from leanface.tracking.record import File, Record

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

logger = logging.getLogger(__name__)


def newest_made(client: "MlflowClient", task: str) -> int:
    """Return when the last run was recorded that chose a task's version, in Unix milliseconds; 0 without one."""
    return max((_made_at(version) for version in _versions(client, registered_name(task))), default=0)


def register_champion(client: "MlflowClient", record: Record, network: File, models: Mapping[str, str]) -> None:
    """Register the network and give it the alias, unless a newer run chose another one, or it has it already.

    Args:
        models: the logged models that it is, by the names that they are registered under.
    """
    if record.tags.get(SUMMARY_TAG) != "passed":
        logger.warning("run %r did not pass its gates: its network does not become the %s", record.name, CHAMPION)
        return
    if record.made_at < newest_made(client, record.task):
        logger.warning(
            "run %r is older than the one that the %s comes from: its network is recorded, and the %s stays",
            record.name, CHAMPION, CHAMPION,
        )  # fmt: skip
        return
    for name, model_id in models.items():
        _register(client, record, network, name, model_id)


def _register(client: "MlflowClient", record: Record, network: File, name: str, model_id: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    made = str(record.made_at)
    tags = {NETWORK_TAG: network.sha256, RECORD_TAG: record.id, MADE_TAG: made, MODEL_TAG: model_id}
    current = _current(client, name)
    if current is not None and _is_same(client, current, network):
        client.set_model_version_tag(name, str(current.version), MADE_TAG, made)
        return
    # A delivery that was cut off may have registered it.
    version = next((v for v in _versions(client, name) if v.tags.get(RECORD_TAG) == record.id), None)
    if version is None:
        source = f"models:/{model_id}"
        version = client.create_model_version(name, source, record.run_id, tags, model_id=model_id)
    client.set_registered_model_alias(name, CHAMPION, str(version.version))
    listed = [
        {"name": name, "version": str(v.version)} for v in _versions(client, name) if v.tags.get(MODEL_TAG) == model_id
    ]
    client.set_logged_model_tags(model_id, {"mlflow.modelVersions": json.dumps(listed)})  # for MLflow's pages


def _versions(client: "MlflowClient", name: str) -> "list[ModelVersion]":
    return list(client.search_model_versions(f"name = '{name}'"))


def _current(client: "MlflowClient", name: str) -> "ModelVersion | None":
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # no model, no alias
            raise
        return None


def _is_same(client: "MlflowClient", version: "ModelVersion", network: File) -> bool:
    """Tell whether the version is of this network, and its files were not deleted."""
    from mlflow.exceptions import MlflowException

    if version.tags.get(NETWORK_TAG) != network.sha256:
        return False
    try:
        client.get_logged_model(version.tags.get(MODEL_TAG, ""))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return True


def _made_at(version: "ModelVersion") -> int:
    """Return the time of a version's run; of one that was registered by hand, or by an older LeanFace, its own."""
    made = version.tags.get(MADE_TAG, "")
    return int(made) if made.isdecimal() else int(version.creation_timestamp)
