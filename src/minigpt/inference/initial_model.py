"""The model that a run starts from: its weights, and the tokenizer that they are for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from minigpt.config.packaged import components
from minigpt.data.tokenizer import LineTokenizer, Tokenizer, load_tokenizer
from minigpt.inference.load import find_model
from minigpt.model.lora import without_lora
from minigpt.model.objectives import Objective
from minigpt.model.size import build_within_memory
from minigpt.runs.checkpoint_content import check_weights
from minigpt.runs.resume import ResumePlan
from minigpt.runs.untrusted import check_mapping


@dataclass(frozen=True)
class InitialModel:
    """What a run starts from.

    Attributes:
        source: the folder, checkpoint or run; None for a run that starts from random weights.
        tokenizer: the tokenizer of the weights, None without a source.
        weights: None for a run that is resumed, whose weights are those of its own checkpoint.
    """

    source: str | None = None
    tokenizer: Tokenizer | None = None
    weights: Mapping[str, Tensor] | None = None

    @property
    def data_options(self) -> dict[str, Any]:
        """The arguments of the data module."""
        return {} if self.tokenizer is None else {"pretrained": self.tokenizer}

    def build(
        self, constructor: Callable[..., nn.Module], tokenizer: Tokenizer, objective: Objective, *, copies: int
    ) -> nn.Module:
        """Build the model of a run, with these weights.

        Args:
            constructor: called with `vocab_size`.
            tokenizer: that of the run's text.
            objective: what the model is trained for.
            copies: see `build_within_memory`.

        Raises:
            ValueError: it does not fit in memory, the weights are those of another model, or for another tokenizer.
        """
        if self.tokenizer is not None and tokenizer.state() != self.tokenizer.state():
            raise ValueError(f"init_from={self.source} has another tokenizer than this text: choose another data=...")
        vocab_size = tokenizer.vocab_size + objective.num_special_tokens
        model = build_within_memory(constructor, vocab_size=vocab_size, copies=copies)
        if self.source is None and len(without_lora(model.state_dict())) < len(model.state_dict()):
            raise ValueError("model/adapter=lora adapts a trained model: add init_from=FOLDER, a run or a checkpoint")
        if self.weights is not None:
            try:
                check_weights(self.weights, without_lora(model.state_dict()))
            except ValueError as error:
                raise ValueError(f"init_from={self.source} does not fit model or objective: {error}") from error
            model.load_state_dict(self.weights, strict=False)  # LoRA's own weights begin anew
        return model


def find_initial_model(config: Mapping[str, Any], plan: ResumePlan | None) -> InitialModel:
    """Return what a run starts from. A resumed run needs no more than its own checkpoint.

    Args:
        config: the configuration of the run, which has the model of `init_from`, see `minigpt.config.initial`.
        plan: what the run resumes from.

    Raises:
        ValueError: there is no such model, or it is damaged.
    """
    source = config["init_from"]
    if source is None:
        return InitialModel()
    if plan is not None:
        state = check_mapping(plan.content["minigpt"].get("tokenizer"), f"the tokenizer of {plan.checkpoint}")
        return InitialModel(source, load_tokenizer(state))
    trusted = frozenset(str(node["_target_"]) for _, node in components(config["model"]))  # checked by now
    loaded = find_model(source, config["paths"]["runs_dir"], "cpu", trusted=trusted)
    return InitialModel(source, loaded.tokenizer, loaded.model.state_dict())


def tokenizer_node(tokenizer: Tokenizer) -> dict[str, Any] | None:
    """Return the node of `data.tokenizer` for a trained tokenizer; None for that of lines, which has none."""
    if isinstance(tokenizer, LineTokenizer):
        return None
    kind = type(tokenizer)
    size = {"vocab_size": tokenizer.vocab_size} if "vocab_size" in tokenizer.state() else {}
    return {"_target_": f"{kind.__module__}.{kind.__qualname__}", "_partial_": True, **size}
