"""What the page may ask for. The annotations are the schemas of the JSON bodies, as those of the commands' options."""

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Le

from minigpt.bounds import Fraction, NonNegativeInt, PositiveInt, Seed

Temperature = Annotated[float, Ge(0), Le(100)]
NumTokens = Annotated[int, Ge(1), Le(500)]


@dataclass(frozen=True, kw_only=True)
class InspectRequest:
    """What is within a model for a prompt.

    Attributes:
        checkpoint: file name of a checkpoint of the run.
        prompt: the text that was typed.
    """

    checkpoint: str
    prompt: str


@dataclass(frozen=True, kw_only=True)
class PredictRequest(InspectRequest):
    """The distribution of the token after a prompt; for the options of sampling see generate.py.

    Attributes:
        tokens: token ids that follow the prompt.
    """

    tokens: list[NonNegativeInt]
    temperature: Temperature
    top_k: PositiveInt | None = None
    top_p: Fraction | None = None

    @property
    def sampling(self) -> dict[str, Any]:
        """The options of `minigpt.inference.sampling.token_probabilities`."""
        return {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p}


@dataclass(frozen=True, kw_only=True)
class GenerateRequest(PredictRequest):
    """A continuation of a prompt, with the alternatives at each step."""

    max_new_tokens: NumTokens
    seed: Seed
