"""A proxy between client and server that can be told to misbehave."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

Mode = Literal["pass", "cut", "delay", "error"]
DELAY_SECONDS = 5.0
_ERROR = (
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 6\r\nConnection: close\r\n\r\nbroken"
)


class Proxy:
    """Forwards TCP connections to a port of the loopback.

    `pass`: as they come; `cut`: closed at once; `delay`: every request waits for five seconds;
    `error`: every request is answered with status 500.
    """

    def __init__(self, target: int) -> None:
        self.target, self.mode = target, "pass"
        self.n_hit = 0  # connections and requests that met another mode
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def set(self, mode: Mode) -> None:
        """Change what it does; connections that are open are closed."""
        self.mode = mode
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def being(self, mode: Mode) -> Iterator[None]:
        """Do something else for a while."""
        self.set(mode)
        try:
            yield
        finally:
            self.set("pass")

    def close(self) -> None:
        """End it."""
        self._listener.close()
        self.set("cut")

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            self.n_hit += self.mode in ("cut", "error")
            if self.mode == "cut":
                return
            if self.mode == "error":
                client.recv(65536)
                client.sendall(_ERROR)
                return
            with socket.create_connection(("127.0.0.1", self.target), timeout=30) as server:
                server.settimeout(None)
                self._open |= {client, server}
                try:
                    back = threading.Thread(target=self._copy, args=(server, client), daemon=True)
                    back.start()
                    self._copy(client, server, is_request=True)
                    back.join()
                finally:
                    self._open -= {client, server}

    def _copy(
        self, source: socket.socket, target: socket.socket, is_request: bool = False
    ) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if is_request and self.mode == "delay":
                    self.n_hit += 1
                    time.sleep(DELAY_SECONDS)
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
