"""Stage configure: conf/ and params.yaml, composed and validated, become reports/config.yaml."""

from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf

from leanface import paths
from leanface.config import parse_config
from leanface.errors import ConfigError
from leanface.files import atomic_write
from leanface.params import merge, read_params


def run() -> dict[str, float]:
    params = read_params(paths.PARAMS, paths.CONF)
    choices = [f"{group}={name}" for group, name in params.choices.items()]
    try:
        with initialize_config_dir(str(paths.CONF.resolve()), version_base="1.3"):
            composed: Any = OmegaConf.to_container(compose("config", choices), resolve=True)
    except (HydraException, yaml.YAMLError) as error:
        raise ConfigError(f"{paths.CONF}/ does not compose with {choices}: {error}") from None
    config = parse_config(merge(composed, params.values), f"{paths.CONF}/ with {paths.PARAMS}")
    text = f"# Written by stage configure: edit {paths.PARAMS} or {paths.CONF}/ instead.\n"
    text += yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    atomic_write(paths.CONFIG, text)
    return {}
