"""Open MLflow's pages where they show this project's runs."""

import logging
import os
import socket
import subprocess
import sys

from leanface.errors import TrackingError
from leanface.tracking.place import tracking_uri
from leanface.tracking.store import Store
from leanface.tracking.view import view_addresses

logger = logging.getLogger(__name__)

HOST, PORT = "127.0.0.1", 5000


def open_pages() -> None:
    """Say where MLflow's pages show this project's runs, and serve them until interrupted unless a server does.

    Raises:
        TrackingError: MLflow is out of reach, or its pages could not be served.
    """
    uri, store = tracking_uri(), Store()  # also creates the database, which `mlflow ui` would do without a lock
    if uri.startswith(("http://", "https://")):
        logger.info(
            "MLflow shows the runs at\n  %s\nand the best as charts at\n  %s", *view_addresses(uri, store.experiment_id)
        )
        return
    port = PORT if _is_free(PORT) else 0
    if port == 0:
        with socket.create_server((HOST, 0)) as free:
            port = free.getsockname()[1]
    addresses = view_addresses(f"http://{HOST}:{port}", store.experiment_id)
    logger.info(
        "In some seconds MLflow shows the runs at\n  %s\nand the best as charts at\n  %s\nCtrl-C ends it.", *addresses
    )
    quiet = ["--uvicorn-opts", "--log-level warning", "--workers", "1"]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        HOST,
        "--port",
        str(port),
        "--backend-store-uri",
        uri,
    ]
    try:
        status = subprocess.run(
            [*command, *quiet], check=False, env={**os.environ, "PYTHONWARNINGS": "ignore"}
        ).returncode
    except KeyboardInterrupt:
        return
    if status != 0:
        raise TrackingError(f"MLflow's server ended with status {status}; what it printed above says why.")


def _is_free(port: int) -> bool:
    try:
        with socket.create_server((HOST, port)):
            return True
    except OSError:
        return False
