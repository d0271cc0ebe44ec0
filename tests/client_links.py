"""A network link between a client and a cluster on this machine, which counts bytes and can be slow. No test module."""

from __future__ import annotations

import os
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Self

_PIECE = 2**16


class Link:
    """Proxies in front of servers; all bytes that pass them share the link. A context manager that closes them.

    Attributes
    ----------
    received, sent
        Bytes that servers have sent to the client, and bytes that they have received.
    bytes_per_second
        Speed of the link in each direction; None: as fast as the machine.
    """

    def __init__(self) -> None:
        self.received = self.sent = 0
        self.bytes_per_second: float | None = None
        self._receiving, self._sending = threading.Lock(), threading.Lock()
        self._proxies: list[_Proxy] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for proxy in self._proxies:
            proxy.shutdown()
            proxy.server_close()

    def to(self, address: str) -> str:
        """Open a proxy in front of a server, such as tcp://127.0.0.1:8786, and return its address."""
        proxy = _Proxy(self, address)
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        self._proxies.append(proxy)
        return f"tcp://127.0.0.1:{proxy.server_address[1]}"

    def receive(self, n_bytes: int) -> None:
        with self._receiving:
            self._take_time(n_bytes)
            self.received += n_bytes

    def send(self, n_bytes: int) -> None:
        with self._sending:
            self._take_time(n_bytes)
            self.sent += n_bytes

    def _take_time(self, n_bytes: int) -> None:
        if self.bytes_per_second is not None:
            time.sleep(n_bytes / self.bytes_per_second)


class _Proxy(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, link: Link, address: str) -> None:
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        self.link, self.server = link, (host, int(port))
        super().__init__(("127.0.0.1", 0), _Connection)


class _Connection(socketserver.BaseRequestHandler):
    server: _Proxy

    def handle(self) -> None:
        with suppress(ConnectionError), socket.create_connection(self.server.server) as server:
            back = threading.Thread(target=_pass_on, args=(server, self.request, self.server.link.receive), daemon=True)
            back.start()
            _pass_on(self.request, server, self.server.link.send)
            back.join()


def _pass_on(source: socket.socket, sink: socket.socket, count: Callable[[int], None]) -> None:
    with suppress(OSError):
        while piece := source.recv(_PIECE):
            count(len(piece))
            sink.sendall(piece)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def free_address() -> str:
    """Return an address on a network of this process, where no other process looks for a free port.

    Raises
    ------
    OSError
        If the system has one loopback address only.
    """
    host = "127." + ".".join(map(str, os.getpid().to_bytes(4)[1:]))
    with socket.create_server((host, 0)) as server:
        return f"tcp://{host}:{server.getsockname()[1]}"
