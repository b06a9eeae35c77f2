"""MLflow's pages on the store in use."""

import errno
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
            is_taken = error.errno == errno.EADDRINUSE
            problem = "is in use" if is_taken else f"cannot be used ({error.strerror})"
            raise PipelineError(
                f"port {port} {problem}: choose another by `gan ui --port PORT`"
            ) from error
    # One process answers one person; four would take four times the memory and start-up time.
    arguments = ["--host", HOST, "--port", str(port), "--workers", "1"]
    # By the environment, not by an argument that everybody's `ps` shows: it may hold a password.
    environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": uri}
    os.execve(sys.executable, [sys.executable, "-m", "mlflow", "ui", *arguments], environment)  # noqa: S606
