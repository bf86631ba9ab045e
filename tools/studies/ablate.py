"""`python -m tools.studies ablate STAGE`: every variant under equal conditions, measured on the val split."""

import logging
import time
from pathlib import Path
from typing import Any

from leanface import paths
from leanface.config import load_face_config
from leanface.errors import Unfinished
from leanface.files import read_json, write_json
from leanface.params import merge
from tools.studies.distill import DistillStudy
from tools.studies.quantize import QuantizeStudy
from tools.studies.study import Study
from tools.studies.table import RESULT, save_table
from tools.studies.variants import read_variants

logger = logging.getLogger(__name__)

STUDIES: dict[str, type[Study[Any]]] = {"distill": DistillStudy, "quantize": QuantizeStudy}

SPARE_SECONDS = 30.0
"""Of a piece's time, not for training: what comes before it, the last validation and the measuring after it."""


def ablate(
    stage: str,
    table: Path,
    folder: Path,
    steps: int | None = None,
    share: tuple[int, int] = (1, 1),
    seconds: float | None = None,
) -> None:
    """Make and measure every variant that was not done yet; the table and its pictures grow as they are done.

    Nothing else is needed than reports/config.yaml, the original's bundle, the prepared faces (of those, streamed
    distillation needs the val split alone), and what the variants start from: see the study.

    Args:
        stage: a name in `STUDIES`.
        table: YAML, see tools/studies/tables/.
        folder: where results go; a finished variant whose conditions are the same is not run again.
        steps: of training, in place of the configuration's.
        share: (number, count) of this process among those that share the table; every `count`-th variant is its own.
        seconds: after which nothing more is trained; the same command goes on.

    Raises:
        ConfigError: the table is not valid, or what a variant starts from does not fit it.
        Unfinished: the time was over.
    """
    end = None if seconds is None else time.monotonic() + seconds
    config, kind = load_face_config(paths.CONFIG), STUDIES[stage]
    if steps is not None:
        changed = merge(config.model_dump(), {stage: {"optimizer": {"steps": steps}}})
        config = type(config).model_validate(changed)
    variants = read_variants(table, config, kind.variant)
    study, (number, count) = kind(config), share
    for place, (name, variant) in enumerate(variants.items()):
        if place % count != number - 1:
            continue
        report = folder / name
        fingerprint = study.fingerprint(variant)
        if not _is_done(report / RESULT, fingerprint):
            left = None if end is None else end - time.monotonic() - SPARE_SECONDS
            if left is not None and left <= 0:
                raise Unfinished(f"the time was over before {name}; run the same command again to go on.")
            logger.info("%s: %d steps", name, variant.steps)
            result = study.run(name, variant, report, left)
            write_json(report / RESULT, {"fingerprint": fingerprint, "place": place, "name": name, **result})
        finished = {other: folder / other / RESULT for other in variants}
        save_table({other: read_json(file) for other, file in finished.items() if file.is_file()}, folder)


def _is_done(file: Path, fingerprint: str) -> bool:
    return file.is_file() and read_json(file).get("fingerprint") == fingerprint
