"""MLflow, as a sink: what ran, with which parameters, and what it measured.

The store is mlflow.db in the project's root folder; `MLFLOW_TRACKING_URI` replaces it. Importing and opening
MLflow takes seconds, so only a stage that reports live curves for longer than that pays for it: the others
leave their record in the outbox, and the next process that opens MLflow (at the latest stage `report`)
delivers it. Nor does a missing or locked store stop a stage: its record stays in the outbox.
"""

from leanface.tracking.names import (
    CHAMPION,
    EXPERIMENT,
    EXPERIMENT_TAG,
    MODEL,
    PARENT_RUN,
    PARENT_TAG,
    PROMOTED_TAG,
    SUMMARY_TAG,
    SWEEP_TAG,
)
from leanface.tracking.pages import open_pages
from leanface.tracking.pipeline import in_trial, log_headline, log_summary
from leanface.tracking.place import store_root, tracking_uri
from leanface.tracking.runs import Run, begin_run, record_part, stage_run
from leanface.tracking.store import deliver

__all__ = [
    "CHAMPION",
    "EXPERIMENT",
    "EXPERIMENT_TAG",
    "MODEL",
    "PARENT_RUN",
    "PARENT_TAG",
    "PROMOTED_TAG",
    "SUMMARY_TAG",
    "SWEEP_TAG",
    "Run",
    "begin_run",
    "deliver",
    "in_trial",
    "log_headline",
    "log_summary",
    "open_pages",
    "record_part",
    "stage_run",
    "store_root",
    "tracking_uri",
]
