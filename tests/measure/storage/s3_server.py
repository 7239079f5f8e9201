"""A real S3 server on loopback (moto's) behind a proxy of ours that delays, limits and refuses.

Both live in one forked process, so that they do not share the interpreter of the loop that is measured.
What the proxy does to requests is told to it over HTTP too (`Place.behave`).
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import random
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from aiohttp import ClientSession, web

PIECE_BYTES = 16 * 1024
SLOW_DOWN = (
    '<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code>'
    "<Message>Please reduce your request rate.</Message></Error>"
)


@dataclass(frozen=True)
class Behaviour:
    """What stands between the client and the server. Only requests for objects' content are touched, and
    those that write objects where it says so."""

    latency_s: float = 0.0
    """Before the first byte of an answer."""
    bytes_per_s: float = 0.0
    """Of all answers together; 0 is no limit."""
    refused: float = 0.0
    """Share of the requests that are answered 503 SlowDown."""
    dropped: float = 0.0
    """Share of the requests whose connection is cut before they are answered."""
    writes: float = 0.0
    """Above 0: writes are touched too."""


@dataclass(frozen=True)
class Place:
    """Where the server is."""

    url: str

    def behave(self, **how: float) -> None:
        """From now on, be like this."""
        body = json.dumps(asdict(Behaviour(**how))).encode()
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/_behave", body), timeout=5).close()

    def seen(self) -> dict[str, int]:
        """Requests for objects' content since `behave`, how many of them were refused, how many cut, and the
        bytes that were read."""
        with urllib.request.urlopen(f"{self.url}/_seen", timeout=5) as answer:
            seen: dict[str, int] = json.load(answer)
        return seen


_NOTHING = {"requests": 0, "refused": 0, "dropped": 0, "bytes": 0}


class Proxy:
    """Hands requests on to `server`, and answers back as it was told to behave."""

    def __init__(self, server: str) -> None:
        self.server, self.behaviour = server, Behaviour()
        self.chance, self.seen = random.Random(0), dict(_NOTHING)
        self.free_at = 0.0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/_behave":
            self.behaviour, self.seen = Behaviour(**await request.json()), dict(_NOTHING)
            self.chance = random.Random(0)
            return web.Response()
        if request.path == "/_seen":
            return web.json_response(self.seen)
        read = request.method == "GET" and "list-type" not in request.query
        touched = read or (self.behaviour.writes > 0 and request.method in ("PUT", "POST"))
        if touched:
            self.seen["requests"] += 1
            if self.chance.random() < self.behaviour.dropped:
                self.seen["dropped"] += 1
                assert request.transport is not None
                request.transport.close()
                return web.Response(status=500)
            if self.chance.random() < self.behaviour.refused:
                self.seen["refused"] += 1
                return web.Response(status=503, text=SLOW_DOWN, content_type="application/xml")
        status, headers, body = await self.asked(request)
        if read:
            self.seen["bytes"] += len(body)
        if touched:
            await asyncio.sleep(self.behaviour.latency_s)
        return await self.sent(request, status, headers, body, touched)

    async def asked(self, request: web.Request) -> tuple[int, dict[str, str], bytes]:
        """The server's own answer."""
        session: ClientSession = request.app["session"]
        headers = {k: v for k, v in request.headers.items() if k.lower() != "transfer-encoding"}
        url = self.server + request.raw_path
        async with session.request(
            request.method, url, headers=headers, data=await request.read(), allow_redirects=False
        ) as answer:
            kept = {
                k: v
                for k, v in answer.headers.items()
                if k.lower() not in ("transfer-encoding", "connection")
            }
            return answer.status, kept, await answer.read()

    async def sent(
        self, request: web.Request, status: int, headers: dict[str, str], body: bytes, limited: bool
    ) -> web.StreamResponse:
        answer = web.StreamResponse(status=status, headers=headers)
        await answer.prepare(request)
        if request.method != "HEAD":
            for first in range(0, len(body), PIECE_BYTES):
                piece = body[first : first + PIECE_BYTES]
                if limited and self.behaviour.bytes_per_s:
                    await self.turn(len(piece))
                await answer.write(piece)
        await answer.write_eof()
        return answer

    async def turn(self, size: int) -> None:
        """Wait until the one line, which all answers share, is free for so many bytes, and they are sent."""
        now = asyncio.get_running_loop().time()
        self.free_at = max(now, self.free_at) + size / self.behaviour.bytes_per_s
        await asyncio.sleep(self.free_at - now)


def _serve(pipe: Any) -> None:
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    asyncio.run(_proxy(pipe, "http://{}:{}".format(*server.get_host_and_port())))


async def _proxy(pipe: Any, server: str) -> None:
    app = web.Application(client_max_size=2**30)
    async with ClientSession(auto_decompress=False) as app["session"]:
        proxy = Proxy(server)
        app.router.add_route("*", "/{path:.*}", proxy.handle)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        pipe.send(port)
        await asyncio.get_running_loop().run_in_executor(None, pipe.poll, None)  # until the test is done
        await runner.cleanup()


@contextmanager
def s3_server() -> Iterator[Place]:
    """A server with no bucket in it."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_serve, args=(there,), daemon=True)
    process.start()
    try:
        assert here.poll(30), "the S3 server did not start"
        yield Place(f"http://127.0.0.1:{here.recv()}")
    finally:
        here.send("end")
        process.join(5)
        process.kill()
        process.join()
        here.close()
        there.close()
