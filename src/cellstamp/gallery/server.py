"""Serve a gallery as a page of this computer, to one who knows its address."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from cellstamp.errors import ConfigError
from cellstamp.gallery.messages import Messages, Reply
from cellstamp.gallery.tabs import Tabs

HOST = "127.0.0.1"
_HOSTS = (HOST, "localhost", "[::1]")
"""Names of this computer in addresses. Others mean that a web site has pointed its name here (DNS rebinding)."""

_ASSETS = {
    "": ("page.html", "text/html"),
    "gallery.js": ("gallery.js", "text/javascript"),
    "gallery.css": ("gallery.css", "text/css"),
}
"""Files of the page by their address: nothing else can be read."""

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_MOST_BYTES = 2**20
"""Largest request: one with many categories has some kB."""
_PULSE = 0.25
"""Seconds between checks whether the server should end."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class GalleryServer:
    """A page with a gallery.

    Parameters
    ----------
    messages
        Answers requests.
    port
        Port; 0: a free one.
    tabs
        Counts open tabs.

    Attributes
    ----------
    address
        Address of the page, with the secret token.

    Raises
    ------
    ConfigError
        If the port is in use.
    """

    def __init__(self, messages: Messages, port: int = 0, tabs: Tabs | None = None) -> None:
        self._messages = messages
        self._tabs = tabs or Tabs(time.monotonic)
        self._token = secrets.token_urlsafe(24)
        self._socket = _listen(port)
        self.port: int = self._socket.getsockname()[1]
        self.address = f"http://{HOST}:{self.port}/{self._token}/"
        self._server = uvicorn.Server(self._config())

    def _config(self) -> uvicorn.Config:
        # Ctrl-C closes streams of open tabs after a second
        return uvicorn.Config(
            self.app(), log_level="error", access_log=False, server_header=False, timeout_graceful_shutdown=1, ws="none"
        )

    def run(self) -> None:
        """Serve until Ctrl-C, `stop`, or until the last tab is closed for good."""
        with suppress(KeyboardInterrupt):
            self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """Have `run` return."""
        self._server.should_exit = True

    def app(self) -> Any:
        """Return the ASGI application."""
        routes = [
            Route("/{token}/message", self._message, methods=["POST"]),
            Route("/{token}/goodbye", self._goodbye, methods=["POST"]),
            Route("/{token}/open", self._open),
            Route("/{token}/", self._asset),
            Route("/{token}/{name}", self._asset),
        ]
        return _Guard(Starlette(routes=routes, lifespan=self._lifespan), self._token)

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        watch = asyncio.create_task(self._end_without_tabs())
        yield
        watch.cancel()

    async def _end_without_tabs(self) -> None:
        while not self._tabs.are_gone():
            await asyncio.sleep(_PULSE)
        self.stop()

    async def _asset(self, request: Request) -> Response:
        name = request.path_params.get("name", "")
        if name not in _ASSETS:
            return PlainTextResponse("not found", 404)
        file, kind = _ASSETS[name]
        content = (files("cellstamp.gallery") / "assets" / file).read_text(encoding="utf-8")
        return Response(content, media_type=kind)

    async def _message(self, request: Request) -> Response:
        try:
            body = await _body_of(request)
        except ClientDisconnect:  # nobody reads an answer
            return PlainTextResponse("", 400)
        if body is None:
            return PlainTextResponse("the request is too large", 413)
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            return PlainTextResponse("invalid request: not JSON", 400)
        reply = await run_in_threadpool(self._messages.answer, content)
        return Response(pack(reply), media_type="application/octet-stream")

    async def _goodbye(self, request: Request) -> Response:
        self._tabs.say_goodbye(request.query_params.get("tab", ""))
        return PlainTextResponse("")

    async def _open(self, request: Request) -> Response:
        """Answer without end: the connection shows that a tab is open."""
        return StreamingResponse(self._pulse(request.query_params.get("tab", "")), media_type="text/plain")

    async def _pulse(self, tab: str) -> AsyncIterator[bytes]:
        self._tabs.open(tab)
        try:
            while not self._server.should_exit:
                yield b"."
                await asyncio.sleep(_PULSE)
        finally:
            self._tabs.disconnect(tab)


class _Guard:
    """Answers only requests from this computer's own page that know the token, and adds headers to all answers."""

    def __init__(self, app: Any, token: str) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                own = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            await send(message)

        problem = self._problem(Request(scope))
        answer = self._app if problem is None else problem
        await answer(scope, receive, send_with_headers)

    def _problem(self, request: Request) -> Response | None:
        host = request.headers.get("host", "")
        if _host_of(host) not in _HOSTS:
            return PlainTextResponse("this page is for this computer only", 403)
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return PlainTextResponse("a page of another site must not read this one", 403)
        token = request.url.path.split("/")[1] if request.url.path.count("/") > 1 else ""
        if not secrets.compare_digest(token.encode(), self._token.encode()):
            return PlainTextResponse("wrong address: use the one that cellstamp browse shows", 403)
        return None


async def _body_of(request: Request) -> bytes | None:
    """Return the body of a request, or None if it is too large."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MOST_BYTES:
            return None
    return body


def _host_of(header: str) -> str:
    """Return the name in a header ``Host``. Its port may be that of a tunnel."""
    name, colon, port = header.rpartition(":")
    return name if colon and port.isdecimal() else header


def pack(reply: Reply) -> bytes:
    """Return a reply as bytes: the length of the JSON (4 bytes, little endian), the JSON, and the buffers.

    The JSON has their lengths as ``buffers``.
    """
    parts = [buffer.tobytes() for buffer in reply.buffers]
    head = json.dumps({**reply.content, "buffers": list(map(len, parts))}).encode()
    return b"".join([len(head).to_bytes(4, "little"), head, *parts])


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere, it would let two programs listen at one port
            # a port can be used again at once, while connections of the last page are still closing
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"port = {port}: cannot be used ({reason}). Choose another one, or leave it out for a free one"
        ) from error
    return listener
