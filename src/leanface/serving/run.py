"""`leanface serve`: run the service until a signal ends it."""

import contextlib
import logging
from collections.abc import Callable, Generator
from itertools import count

from leanface import tracking
from leanface.errors import BackendError
from leanface.monitoring.monitor import Report
from leanface.reconstruction.network import default_model, require_face
from leanface.runtime.onnx_file import read_onnx
from leanface.serving.app import create_app
from leanface.serving.server import is_local, listen, new_server, run, url
from leanface.serving.settings import API_KEY, Settings

logger = logging.getLogger(__name__)


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM; then take no new requests, finish the accepted ones, and return.

    Raises:
        ArtifactError: there is no network to serve, or it does not read faces.
        BackendError: the address cannot be used, or no worker can start.
    """
    if settings.model is None:
        default_model()  # says so at once if there is none
    for model in (settings.model, settings.better_model):
        if model is not None and model.suffix == ".onnx":  # other files need PyTorch, which workers alone import
            require_face(model, read_onnx(model).task)
    failures: list[BackendError] = []
    with listen(settings.host, settings.port) as listening, _reports(settings) as on_report:
        logger.info("starting on %s", url(settings.host, settings.port))
        if settings.api_key is None and not is_local(listening):
            logger.warning("anyone who can reach this address may use the service: set %s to require a key", API_KEY)

        def stop(error: BackendError) -> None:
            failures.append(error)
            server.should_exit = True

        server = new_server(create_app(settings, on_report, stop), settings.time_limit_s + 1)
        run(server, listening)
    if failures:
        raise failures[0]


@contextlib.contextmanager
def _reports(settings: Settings) -> Generator[Callable[[Report], None]]:
    """Say where the monitor's reports go: to a run in MLflow, or nowhere."""
    if not settings.track:
        yield lambda report: None
        return
    params = settings.model_dump(mode="json", exclude={"api_key"})
    with tracking.stage_run("serve", {"serve": params}, {}, live_after_s=0.0) as run:
        steps = count()
        yield lambda report: run.log_live(report.metrics(), next(steps))
