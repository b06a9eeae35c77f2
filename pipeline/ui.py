"""MLflow's pages on the store in use."""

import os
import socket
import sys

from pipeline.errors import PipelineError
from tuning.tracking import tracking_uri

HOST = "127.0.0.1"


def serve_ui(port: int) -> None:
    """Become MLflow's server on a local store; for a remote one, say where it is.

    Raises:
        PipelineError: if the port is in use, or the store is a server that has its own pages.
    """
    uri = tracking_uri()
    if uri.startswith(("http://", "https://")):
        raise PipelineError(f"the store in use has its own pages: open {uri}")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise PipelineError(
                f"port {port} is in use: choose another by `gan ui --port {port + 1}`"
            ) from error
    # One process answers one person; four would take four times the memory and start-up time.
    arguments = ["--backend-store-uri", uri, "--host", HOST, "--port", str(port), "--workers", "1"]
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", "ui", *arguments])  # noqa: S606
