"""Predictions over HTTP, on this machine only: what `kedro serve` runs, with FastAPI and uvicorn.

    GET  /         what the model is, and what it takes
    POST /predict  a picture or a sound as the body; or JSON, a list under the modality's field: {"texts": […]},
                   {"rows": [{…}, …]}

The answer is a list: for each sample the columns of the table that `predict` writes. Whatever is wrong with a request
is answered with a status from 400 to 422 and a line that says what.
"""

from __future__ import annotations

import asyncio
import io
import json
import math
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pyarrow
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from starlette.middleware.trustedhost import TrustedHostMiddleware

from torchloom.config import ServeConfig
from torchloom.errors import InputError
from torchloom.inference.model import Model
from torchloom.modalities import Info

HOST = "127.0.0.1"
AT_ONCE = 4  # requests that are worked on; the others wait
CONNECTIONS = 64  # further ones are answered with 503


def create_app(model: Model, name: str, config: ServeConfig) -> FastAPI:
    """The application that answers for one model."""
    app = FastAPI(title=f"torchloom: {name}", openapi_url=None)
    # a page in the user's browser cannot reach it by a name of its own (DNS rebinding)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    model = model.told(config)
    info, problem = model.info, model.problem
    field = info.field
    takes = f'JSON: {{"{field}": [...]}}' if field else info.body
    known = {"problem": problem.name, "modality": info.kind, "takes": takes, **problem.said(model), **info.said()}
    answer = answerer(model, config)
    turn = asyncio.Semaphore(AT_ONCE)

    @app.get("/")
    async def describe() -> dict[str, Any]:
        return {"model": name, **known}

    @app.post("/predict")
    async def predict(request: Request) -> list[dict[str, Any]]:
        _check_type(request, field, takes)
        body = await _body(request, config.megabytes * 1_000_000)
        async with turn:
            try:
                return await run_in_threadpool(lambda: answer(_items(body, info, config.most) if field else [body]))
            except InputError as error:
                raise HTTPException(422, error.message) from error

    return app


def answerer(model: Model, config: ServeConfig) -> Callable[[list[Any]], list[dict[str, Any]]]:
    """What makes answers of files as bytes, of texts, prompts or rows; InputError says which one is wrong and why.

    The number in it counts from 0, as in JSON's lists.
    """
    read = model.info.reader(config)
    columns, answers = model.answering(config)

    def answer(items: list[Any]) -> list[dict[str, Any]]:
        samples = []
        for number, item in enumerate(items):
            try:
                samples.append(read(io.BytesIO(item) if isinstance(item, bytes) else item))
            except InputError as error:
                where = "the body" if isinstance(item, bytes) else f"{model.info.field}[{number}]"
                raise InputError(f"{where}: {error.message}") from error
        rows: list[dict[str, Any]] = pyarrow.record_batch(answers(samples), schema=columns).to_pylist()
        for row in rows:
            for column, value in row.items():
                numbers = value if isinstance(value, list) else [value]
                if any(isinstance(each, float) and not math.isfinite(each) for each in numbers):  # JSON has none
                    raise InputError(f"the model's {column} is {value}: the input is far from what it was trained on")
        return rows

    return answer


def _check_type(request: Request, field: str | None, takes: str) -> None:
    """Refuse what the client itself says is something else; what it does not say counts as what the model takes."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    others = ("image/", "audio/") if field else ("application/json",)
    if given.startswith((*others, "multipart/")):
        raise HTTPException(415, f"the body is said to be {given}; it must be {takes}")


async def _body(request: Request, largest: int) -> bytes:
    """The request's body; of one that is longer than `largest` bytes no more is read."""
    announced = request.headers.get("content-length", "")
    body = bytearray()
    too_large = HTTPException(413, f"the request is larger than {largest:,} bytes")
    if announced.isdecimal() and int(announced) > largest:
        raise too_large
    async for part in request.stream():
        body += part
        if len(body) > largest:
            raise too_large
    if not body:
        raise HTTPException(400, "the request has no body")
    return bytes(body)


def _items(body: bytes, info: Info, most: int) -> list[Any]:
    """The list that the JSON in `body` has under the modality's field."""
    field, kind = str(info.field), info.item
    try:
        given = json.loads(body, object_pairs_hook=_named_once)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the body is not JSON ({error})") from error
    called = {"dict": "objects", "str": "strings"}.get(kind.__name__, f"{kind.__name__}s")
    items = given[field] if isinstance(given, dict) and given.keys() == {field} else None
    if not isinstance(items, list) or not items or not all(isinstance(item, kind) for item in items):
        raise HTTPException(422, f'the body must be {{"{field}": [...]}} with a list of {called}, and nothing else')
    if len(items) > most:
        raise HTTPException(422, f"{field}: {len(items)} are more than {most} in one request")
    return items


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; Python would take the last of two values of one name."""
    twice = ", ".join(repr(name) for name, count in Counter(name for name, _ in pairs).items() if count > 1)
    if twice:
        raise InputError(f"an object of the body names {twice} more than once, and only one can be meant")
    return dict(pairs)


# ---- the process ---------------------------------------------------------------------------------------------------


def listen(port: int) -> socket.socket:
    """A socket that takes connections from this machine at `port`, at a free one for 0; InputError when it is taken."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # at once after an earlier server has ended
    try:
        listener.bind((HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise InputError(f"--port {port}: {error.strerror}. Choose another one, or 0 for any that is free") from error
    return listener


def serve(app: FastAPI, listener: socket.socket) -> None:
    """Answer until Ctrl-C or SIGTERM."""
    config = uvicorn.Config(app, log_config=None, limit_concurrency=CONNECTIONS, server_header=False)
    with listener, suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])
