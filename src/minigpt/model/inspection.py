"""What happens within a model: activations, attention and parameters, layer by layer.

Shapes: B batch, T query positions, S key positions, D dim, H heads, V vocabulary, L blocks.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.model.attention import CausalSelfAttention
from minigpt.model.gpt import GPT, Block


def parameters_by_layer(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Return the parameters of each block, and of each other submodule, by its name: `embedding`, `blocks.0`, `head`.

    A weight that two layers share is in the first one alone.
    """
    layers: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        numbers = [place for place, part in enumerate(parts) if part.isdigit()]
        layer = ".".join(parts[: numbers[0] + 1]) if numbers else parts[0]
        layers.setdefault(layer, []).append(parameter)
    return layers


@torch.no_grad()
def activation_statistics(model: nn.Module, tokens: Any) -> dict[str, Tensor]:
    """Return scalars of one forward pass, which tell a training that becomes unstable (arXiv 2309.14322).

    - `activation_rms/LAYER`: root mean square of the output of a block.
    - `attention_entropy/LAYER.head_H`: mean over the queries [nats]; 0 when each attends to a single position.
    - `max_logit/LAYER`: largest attention score of a block, and largest logit of the head.

    Args:
        model: in evaluation mode. One without blocks has the last figure alone.
        tokens: its input, such as token ids [B, T].
    """
    figures: dict[str, Tensor] = {}

    def record_block(layer: str, block: nn.Module, inputs: Any, output: Tensor) -> None:
        figures[f"activation_rms/{layer}"] = output.float().square().mean().sqrt()

    def record_attention(layer: str, attention: nn.Module, inputs: tuple[Any, ...]) -> None:
        assert isinstance(attention, CausalSelfAttention)
        x, context, *_ = inputs
        q, k, _ = attention.qkv(x, context)
        scores = attention.attention_scores(q, attention.repeat_kv(k), context).float()
        figures[f"max_logit/{layer}"] = scores.max()
        entropy = torch.special.entr(scores.softmax(dim=-1)).sum(dim=-1).mean(dim=(0, 2))
        figures.update({f"attention_entropy/{layer}.head_{head}": value for head, value in enumerate(entropy)})

    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, Block):
            hooks.append(module.register_forward_hook(partial(record_block, name)))
        elif isinstance(module, CausalSelfAttention):
            hooks.append(module.register_forward_pre_hook(partial(record_attention, name.removesuffix(".attention"))))
    try:
        figures["max_logit/head"] = model(tokens).float().max()
    finally:
        for hook in hooks:
            hook.remove()
    return figures


@torch.no_grad()
def logit_lens(model: GPT, tokens: Tensor, last: int) -> Tensor:
    """Return what the head makes of the residual stream before the first block and after each, [L + 1, B, T, V].

    The last are the logits of the model (nostalgebraist, "interpreting GPT: the logit lens", 2020; arXiv 2303.08112,
    section 2).

    Args:
        model: in evaluation mode.
        tokens: token ids.
        last: positions at the end that are returned, T or fewer.
    """
    stream: list[Tensor] = []

    def record_input(block: nn.Module, inputs: tuple[Any, ...]) -> None:
        stream.append(inputs[0][:, -last:])

    def record_output(block: nn.Module, inputs: Any, output: Tensor) -> None:
        stream.append(output[:, -last:])

    hooks = [model.blocks[0].register_forward_pre_hook(record_input)]
    hooks += [block.register_forward_hook(record_output) for block in model.blocks]
    try:
        model(tokens)
    finally:
        for hook in hooks:
            hook.remove()
    return model.head(model.norm(torch.stack(stream)))
