"""A model of miniGPT as one of transformers: `AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)`.

Shapes: B batch, T time, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from minigpt.model.assembly import assemble
from minigpt.model.components import COMPONENTS


class MiniGPTConfig(PreTrainedConfig):
    """The options of a model of miniGPT.

    Args:
        components: the model's class and its options, nested, each with a `_target_`.
        max_position_embeddings: longest context [tokens].
        vocab_size: number of token ids.
        options: those of every configuration.
    """

    model_type = "minigpt"

    def __init__(
        self,
        components: dict[str, Any] | None = None,
        max_position_embeddings: int = 1,
        vocab_size: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.components = components or {}
        self.max_position_embeddings = max_position_embeddings
        self.vocab_size = vocab_size


class MiniGPTForCausalLM(PreTrainedModel, GenerationMixin):
    """Any causal model of miniGPT. It keeps no key-value cache: each new token reads the whole context."""

    config_class = MiniGPTConfig
    base_model_prefix = "model"

    def __init__(self, config: MiniGPTConfig) -> None:
        super().__init__(config)
        self.model = self.build()
        if config.tie_word_embeddings:
            self._tied_weights_keys = {"model.head.weight": "model.embedding.weight"}
        self.post_init()

    def build(self) -> nn.Module:
        """Return a new model."""
        return assemble(self.config.components, COMPONENTS.__getitem__)(vocab_size=self.config.vocab_size)

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embedding; the model itself where it has none."""
        return getattr(self.model, "embedding", self.model)

    @torch.no_grad()
    def initialize_weights(self) -> None:
        """Compute what no file has, such as masks and rotary angles: transformers has made room for it and no more."""
        with torch.device("cpu"):
            new = self.build()
        computed = dict(new.named_parameters()) | dict(new.named_buffers())
        for name, tensor in [*self.model.named_parameters(), *self.model.named_buffers()]:
            if not getattr(tensor, "_is_hf_initialized", False):
                tensor.copy_(computed[name])

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None, **ignored: Any
    ) -> CausalLMOutput:
        """Token ids [B, T] -> logits [B, T, V] of the token that follows each, and the loss of labels [B, T].

        Raises:
            ValueError: there is padding before a text.
        """
        if attention_mask is not None and not attention_mask[:, 0].all():
            raise ValueError("this model reads no padding before a text: pad on the right")
        logits = self.model(input_ids)
        loss = None if labels is None else self.loss_function(logits, labels, vocab_size=self.config.vocab_size)
        return CausalLMOutput(loss=loss, logits=logits)

    def prepare_inputs_for_generation(  # pyright: ignore[reportIncompatibleMethodOverride]  # called by keyword
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **ignored: Any
    ) -> dict[str, Any]:
        """Return the newest tokens, as many as the model reads."""
        newest = slice(-self.config.max_position_embeddings, None)
        mask = None if attention_mask is None else attention_mask[:, newest]
        return {"input_ids": input_ids[:, newest], "attention_mask": mask}
