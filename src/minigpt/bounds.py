"""Ranges of options, for annotations such as `num_layers: PositiveInt`.

`minigpt.config.signature` reads them from a constructor's source, so a value outside its range is refused before
anything is imported. They need no more than annotated-types; a component outside this package may use its own.
"""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Fraction = Annotated[float, Gt(0), Le(1)]
Probability = Annotated[float, Ge(0), Le(1)]
DropProbability = Annotated[float, Ge(0), Lt(1)]
Momentum = Annotated[float, Ge(0), Lt(1)]
LengthPenalty = Annotated[float, Ge(0), Le(10)]  # an exponent
NumModules = Annotated[int, Ge(1), Le(1000)]  # of submodules, each of which takes time to build whatever its size
Steps = Annotated[int, Ge(1), Le(10**10)]  # times the sequences of a step they fit 64 bits
WarmupSteps = Annotated[int, Ge(0), Le(10**10)]
ValFraction = Annotated[float, Gt(0), Le(0.9)]
Seed = Annotated[int, Ge(0), Lt(2**63)]
Port = Annotated[int, Ge(0), Lt(2**16)]

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal[
    "auto", "32-true", "32", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true", "64",
    "transformer-engine", "transformer-engine-float16",
    "16", "fp16", "float16", "bf16", "bfloat16", "fp32", "float32", "fp64", "float64",
]  # fmt: skip
