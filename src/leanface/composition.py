"""Composes conf/ and the changes of an experiment into one validated configuration, with Hydra."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf

from leanface.config import Config, parse_config
from leanface.errors import ConfigError
from leanface.params import merge, sort_params


class Composer:
    """Composes configurations from one folder; each choice of groups is composed once."""

    def __init__(self, conf: Path) -> None:
        """Take the folder with config.yaml and the groups."""
        self._conf = conf
        self._composed: dict[tuple[str, ...], dict[str, Any]] = {}

    def compose(self, params: Mapping[str, Any], source: str) -> Config:
        """Return conf/ with the choices and values of `params`, validated.

        Args:
            params: nested, as in params.yaml.
            source: what errors call it.

        Raises:
            ConfigError: a key, a choice or a value is not valid; it says what is.
        """
        sorted_params = sort_params(params, self._conf, source)
        choices = tuple(f"{group}={name}" for group, name in sorted_params.choices.items())
        if choices not in self._composed:
            self._composed[choices] = self._hydra(choices)
        return parse_config(merge(self._composed[choices], sorted_params.values), f"{self._conf}/ with {source}")

    def _hydra(self, choices: tuple[str, ...]) -> dict[str, Any]:
        try:
            with initialize_config_dir(str(self._conf.resolve()), version_base="1.3"):
                composed: Any = OmegaConf.to_container(compose("config", list(choices)), resolve=True)
        except (HydraException, yaml.YAMLError) as error:
            raise ConfigError(f"{self._conf}/ does not compose with {list(choices)}: {error}") from None
        return composed
