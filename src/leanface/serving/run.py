"""`leanface serve`: the application in a server, until a signal ends it."""

import contextlib
import logging
import math
import signal
from collections.abc import Callable, Generator
from itertools import count
from types import FrameType

import uvicorn

from leanface import tracking
from leanface.errors import BackendError
from leanface.listening import listen, url
from leanface.monitoring.monitor import Report
from leanface.reconstruction.network import default_model
from leanface.serving.app import create_app
from leanface.serving.settings import Settings

logger = logging.getLogger(__name__)


def serve(settings: Settings, host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM; then take no new requests, finish those that were accepted, and return.

    Raises:
        ArtifactError: there is no network to serve.
        BackendError: the address cannot be had, or no worker can start.
    """
    if settings.model is None:
        default_model()  # says so at once if there is none
    failures: list[BackendError] = []
    with listen(host, port) as listening, _reports(settings) as on_report:
        logger.info("starting on %s", url(host, port))

        def stop(error: BackendError) -> None:
            failures.append(error)
            server.should_exit = True

        config = uvicorn.Config(
            create_app(settings, on_report, stop),
            log_level="warning",
            server_header=False,
            # Beyond these, connections are answered with 503 before their photos are read into memory.
            limit_concurrency=4 * (settings.queue_max + settings.workers * settings.batch_max),
            timeout_graceful_shutdown=math.ceil(settings.time_limit_s) + 1,
        )
        server = uvicorn.Server(config)
        # uvicorn hands a signal on when all is done; what follows here, MLflow's last numbers, still has to run.
        signal.signal(signal.SIGTERM, _heard)
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
    if failures:
        raise failures[0]


def _heard(number: int, frame: FrameType | None) -> None:
    """The server has stopped already."""


@contextlib.contextmanager
def _reports(settings: Settings) -> Generator[Callable[[Report], None]]:
    """Where the monitor's reports go: to a run in MLflow, or nowhere."""
    if not settings.track:
        yield lambda report: None
        return
    params = settings.model_dump(mode="json", exclude={"api_key"})
    with tracking.stage_run("serve", {"serve": params}, {}, live_after_s=0.0) as run:
        steps = count()
        yield lambda report: run.log_live(report.metrics(), next(steps))
