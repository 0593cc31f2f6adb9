"""The web application of the playground: its page, and what the page asks for as JSON."""

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import Route

from minigpt.inference.load import LoadedModel
from minigpt.playground.generation_stream import GenerationResponse, generate_steps
from minigpt.playground.model_views import describe_model, encode_to_continue, inspect_prompt, predict_next
from minigpt.playground.request_checks import ABANDONED, RequestChecks, read_request, refusal
from minigpt.playground.request_queue import ModelThread, RequestQueue
from minigpt.playground.request_schemas import GenerateRequest, InspectRequest, PredictRequest
from minigpt.playground.run_checkpoints import RunCheckpoints

ASSETS = Path(__file__).parent / "assets"
PAGE = "page.html"
MAX_PROMPT = 4000  # characters
MAX_WAITING_GENERATIONS, MAX_WAITING_VIEWS = 4, 16


def make_app(checkpoints: RunCheckpoints, host: str) -> Starlette:
    """Return the application for the checkpoints of a run, for a server that listens on `host`."""
    playground = Playground(checkpoints)
    files = {f"/{path.name}": path for path in sorted(ASSETS.iterdir()) if path.name != PAGE}
    routes = [
        *(Route(url, serve_file(path)) for url, path in ({"/": ASSETS / PAGE} | files).items()),
        Route("/api/run", playground.describe_run),
        Route("/api/inspect", playground.inspect, methods=["POST"]),
        Route("/api/predict", playground.predict, methods=["POST"]),
        Route("/api/generate", playground.generate, methods=["POST"]),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(RequestChecks, host=host)],
        exception_handlers={HTTPException: show_refusal, Exception: show_failure},
    )


class Playground:
    """What the page asks for.

    Args:
        checkpoints: of the run that is shown.
    """

    def __init__(self, checkpoints: RunCheckpoints) -> None:
        self.checkpoints = checkpoints
        self.thread = ModelThread()
        self.views = RequestQueue(MAX_WAITING_VIEWS)
        self.generations = RequestQueue(MAX_WAITING_GENERATIONS)

    async def describe_run(self, request: Request) -> JSONResponse:
        """The run, its checkpoints, and the model of the one that is shown first."""
        checkpoints = self.checkpoints
        about = await self.view(request, lambda: describe_model(checkpoints.load(checkpoints.path.name)))
        files = [{"name": name, "label": label} for name, label in checkpoints.files().items()]
        own = {"name": checkpoints.run_name, "checkpoints": files, "first": checkpoints.first}
        return JSONResponse(own | {"model": about, "max_prompt": MAX_PROMPT})

    async def inspect(self, request: Request) -> JSONResponse:
        """What is within a model for a prompt."""
        asked = await read_request(request, InspectRequest)
        return JSONResponse(await self.view(request, lambda: inspect_prompt(self.load(asked), asked.prompt)))

    async def predict(self, request: Request) -> JSONResponse:
        """The distribution of the next token."""
        asked = await read_request(request, PredictRequest)
        options = asked.sampling
        return JSONResponse(
            await self.view(request, lambda: predict_next(self.load(asked), asked.prompt, asked.tokens, **options))
        )

    async def generate(self, request: Request) -> GenerationResponse:
        """A continuation, as a stream of JSON lines."""
        asked = await read_request(request, GenerateRequest)

        def begin() -> tuple[LoadedModel, list[int]]:
            loaded = self.load(asked)
            return loaded, encode_to_continue(loaded, asked.prompt, asked.tokens)

        loaded, ids = await self.view(request, begin)
        return GenerationResponse(generate_steps(loaded, ids, asked), self.generations, self.thread)

    def load(self, asked: InspectRequest) -> LoadedModel:
        """Return the model that a request names; raises ValueError as `RunCheckpoints.load`, or for a long prompt."""
        if len(asked.prompt) > MAX_PROMPT:
            raise ValueError(f"prompt must be at most {MAX_PROMPT:,} characters long")
        return self.checkpoints.load(asked.checkpoint)

    async def view(self, request: Request, compute: Callable[[], Any]) -> Any:
        """Return what a function of the model computes, in turn.

        Raises:
            HTTPException: it refuses its input, or nobody waits for the answer any more, as when one types on.
        """
        async with self.views.turn():
            if await request.is_disconnected():
                raise ABANDONED
            try:
                return await self.thread.run(compute)
            except (ValueError, OSError) as error:
                raise HTTPException(400, str(error)) from error


def serve_file(path: Path) -> Callable[[Request], Any]:
    """Return the endpoint of a file of the page."""

    async def endpoint(request: Request) -> FileResponse:
        return FileResponse(path)

    return endpoint


async def show_refusal(request: Request, error: Exception) -> JSONResponse:
    """Return the response to a request that is refused."""
    assert isinstance(error, HTTPException)
    response = refusal(error.status_code, error.detail)
    response.headers.update(error.headers or {})
    return response


async def show_failure(request: Request, error: Exception) -> JSONResponse:
    """Return the response to a request that has failed; the traceback is for the terminal alone."""
    traceback.print_exception(error, file=sys.stderr)
    return refusal(500, "this failed; the terminal of the playground says why")
