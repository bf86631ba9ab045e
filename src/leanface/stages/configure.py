"""Stage configure: conf/ and params.yaml, composed and validated, become reports/config.yaml."""

import yaml

from leanface import paths
from leanface.composition import Composer
from leanface.files import atomic_write
from leanface.inputs import record_inputs
from leanface.params import read_params
from leanface.task import adapt


def run() -> dict[str, float]:
    config = Composer(paths.CONF).compose(read_params(paths.PARAMS), str(paths.PARAMS))
    config = adapt(record_inputs(config, paths.CONFIG))
    text = f"# Written by stage configure: edit {paths.PARAMS} or {paths.CONF}/ instead.\n"
    atomic_write(paths.CONFIG, text + yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    return {}
