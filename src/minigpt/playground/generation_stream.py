"""Generate text as a stream of JSON lines, one for each token."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import torch
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send
from torch import Tensor

from minigpt.inference.load import LoadedModel
from minigpt.inference.sampling import generate_with_logits, token_probabilities
from minigpt.playground.model_views import DECIMALS, device_of, token_text
from minigpt.playground.request_queue import ModelThread, RequestQueue
from minigpt.playground.request_schemas import GenerateRequest

NUM_ALTERNATIVES = 6
GENERATION_TIMEOUT_S = 60.0


def generate_steps(loaded: LoadedModel, ids: list[int], request: GenerateRequest) -> Iterator[dict[str, Any]]:
    """Yield each token that is sampled after token ids, with the most likely ones of the distribution it is drawn from.

    Text of a token that is a part of a character stands as U+FFFD, since each token is shown by itself.
    """
    prompt = torch.tensor([ids], device=device_of(loaded.model))
    generator = torch.Generator(prompt.device).manual_seed(request.seed)
    options = {"max_new_tokens": request.max_new_tokens, "generator": generator} | request.sampling
    for token, logits in generate_with_logits(loaded.model, prompt, **options):
        probabilities = token_probabilities(logits, **request.sampling)[0]
        yield {"token": describe_token(loaded, probabilities, int(token))} | {
            "alternatives": [
                describe_token(loaded, probabilities, other)
                for other in probabilities.topk(min(NUM_ALTERNATIVES, len(probabilities))).indices.tolist()
                if probabilities[other] > 0
            ]
        }


def describe_token(loaded: LoadedModel, probabilities: Tensor, token: int) -> dict[str, Any]:
    """Return a token as the page shows it, with its probability of all [V]."""
    probability = round(float(probabilities[token]), DECIMALS)
    return {"id": token, "text": token_text(loaded, token), "probability": probability}


class GenerationResponse:
    """The response to a generation: it waits for its turn, and ends after `GENERATION_TIMEOUT_S` at the latest.

    The turn is held by the response, not by what produces its lines, so that a client that leaves gives it back.
    """

    def __init__(self, steps: Iterator[dict[str, Any]], queue: RequestQueue, thread: ModelThread) -> None:
        self.steps = steps
        self.queue = queue
        self.thread = thread

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self.queue.turn():
            response = StreamingResponse(self.lines(), media_type="application/x-ndjson")
            with suppress(TimeoutError):
                async with asyncio.timeout(GENERATION_TIMEOUT_S):
                    await response(scope, receive, send)

    async def lines(self) -> AsyncIterator[str]:
        """Yield the steps as lines of JSON."""
        while (step := await self.thread.run(next, self.steps, None)) is not None:
            yield json.dumps(step) + "\n"
