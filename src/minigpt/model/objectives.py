"""Training objectives: the loss to minimise, the loss to report and the sums for validation.

Shapes: B batch, S source time, T time, V vocabulary. A target of -100 is not counted.
"""

from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le, Lt
from torch import Tensor, nn

from minigpt.bounds import NonNegativeFloat
from minigpt.model.encoder_decoder import EncoderDecoder
from minigpt.model.gpt import GPT, Block
from minigpt.model.multi_token import MultiTokenGPT
from minigpt.model.ngram import Ngram

IGNORE_INDEX = -100
Tokens = Tensor | tuple[Tensor, Tensor]  # token ids [B, T]; of an encoder-decoder, source [B, S] and target [B, T]


@runtime_checkable
class HasBlockSize(Protocol):
    """A model that states its longest context [tokens], as all models of this package do."""

    block_size: int


@runtime_checkable
class HasVocabSize(Protocol):
    """A model that states its number of token ids, as all models of this package do."""

    vocab_size: int


@runtime_checkable
class HasCausal(Protocol):
    """An attention that states whether it is causal, as all attentions of this package do."""

    causal: bool


class Objective(ABC):
    """A training objective: the loss of a model, and the rules for models that can be trained with it.

    Attributes:
        num_special_tokens: number of token ids that the model needs beyond those of the text.
        can_generate: whether a model trained towards it can continue a text.
        predicts_future: whether it needs a model that predicts several tokens.
    """

    num_special_tokens: ClassVar[int] = 0
    can_generate: ClassVar[bool] = True
    predicts_future: ClassVar[bool] = False

    @abstractmethod
    def loss(self, model: nn.Module, tokens: Tokens, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses to minimise and to report [nats per token] for token ids and targets [B, T]."""

    @abstractmethod
    def predictions(self, model: nn.Module, tokens: Tokens, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits [B, T, V] that are scored, and the targets [B, T] that they are scored against."""

    def score(self, model: nn.Module, tokens: Tokens, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return sums over the counted targets: loss [nats], correct predictions, number of targets."""
        return sum_scores(*self.predictions(model, tokens, targets))

    def check(self, model: nn.Module, *, block_size: int, seq2seq: bool) -> None:
        """Check that a model can be trained towards this objective.

        A model from outside this package is checked only for the attributes that it has or that the objective needs.

        Args:
            model: the model to train.
            block_size: length of the data's sequences [tokens].
            seq2seq: whether the data are pairs of source and target.

        Raises:
            ValueError: the model cannot be trained towards this objective.
        """
        if isinstance(model, HasBlockSize) and block_size > model.block_size:
            raise ValueError(f"data.block_size={block_size} is longer than model.block_size={model.block_size}")
        if isinstance(model, EncoderDecoder) != seq2seq:
            raise ValueError(
                "an encoder-decoder needs pairs of source and target, and no other model reads them: "
                "choose both of model=encoder_decoder data=denoising, or neither"
            )
        if isinstance(model, MultiTokenGPT) != self.predicts_future:
            raise ValueError("model=multi_token and objective=multi_token go together")


class NextToken(Objective):
    """Predict the token that follows each position.

    Args:
        label_smoothing: share of each target's probability that is spread over all tokens (arXiv 1706.03762,
            section 5.4). It changes the loss to minimise; the reported loss is without it.
    """

    def __init__(self, *, label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def loss(self, model: nn.Module, tokens: Tokens, targets: Tensor) -> tuple[Tensor, Tensor]:
        minimised, reported = self.cross_entropy(model(tokens), targets)
        return minimised + auxiliary_loss(model), reported

    def cross_entropy(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean cross-entropy of logits [B, T, V], with label smoothing and without."""
        logits, targets = logits.flatten(0, 1), targets.flatten()
        loss = F.cross_entropy(logits, targets)
        if not self.label_smoothing:
            return loss, loss
        return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing), loss

    def predictions(self, model: nn.Module, tokens: Tokens, targets: Tensor) -> tuple[Tensor, Tensor]:
        return model(tokens), targets

    def check(self, model: nn.Module, *, block_size: int, seq2seq: bool) -> None:
        super().check(model, block_size=block_size, seq2seq=seq2seq)
        if isinstance(model, GPT):
            attentions = [block.attention for block in model.blocks if isinstance(block, Block)]
            if any(isinstance(attention, HasCausal) and not attention.causal for attention in attentions):
                raise ValueError(
                    "model/attention=bidirectional sees the tokens to be predicted: it needs objective=masked"
                )


class MultiToken(NextToken):
    """Predict the next token and those after it at each position (arXiv 2404.19737, section 2).

    For a `MultiTokenGPT`. The reported loss is that of the next token alone.

    Args:
        future_token_weight: weight of the losses of the tokens after the next; 1 in the paper.
        options: as in `NextToken`.
    """

    predicts_future = True

    def __init__(self, *, future_token_weight: NonNegativeFloat = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.future_token_weight = future_token_weight

    def loss(self, model: nn.Module, tokens: Tokens, targets: Tensor) -> tuple[Tensor, Tensor]:
        first, *others = model(tokens, future_tokens=True)
        minimised, reported = self.cross_entropy(first, targets)
        future = sum(self.cross_entropy(logits[:, :-n], targets[:, n:])[0] for n, logits in enumerate(others, start=1))
        return minimised + self.future_token_weight * future + auxiliary_loss(model), reported

    def check(self, model: nn.Module, *, block_size: int, seq2seq: bool) -> None:
        super().check(model, block_size=block_size, seq2seq=seq2seq)
        if isinstance(model, MultiTokenGPT) and model.num_tokens > block_size:
            raise ValueError(f"model.num_tokens={model.num_tokens} is more than data.block_size={block_size}")


class MaskedTokens(Objective):
    """Predict masked tokens from both sides (BERT, arXiv 1810.04805, section 3.1).

    Each token is chosen independently with probability `mask_fraction`. Of the chosen, 80 % become [MASK], the last id
    of the vocabulary, 10 % become a random token and 10 % stay. Targets are used only to find padding: positions whose
    target is -100 are never predicted. Training chooses anew in each step. Validation always makes the same choice for
    the same sequence, whatever the batch and the device.

    Args:
        mask_fraction: share of the tokens that are chosen.
    """

    num_special_tokens = 1
    can_generate = False

    def __init__(self, *, mask_fraction: Annotated[float, Ge(0.01), Le(1)] = 0.15) -> None:
        self.mask_fraction = mask_fraction

    def loss(self, model: nn.Module, tokens: Tokens, targets: Tensor) -> tuple[Tensor, Tensor]:
        assert isinstance(tokens, Tensor)  # see check
        numbers = torch.rand(2, *tokens.shape, device=tokens.device)
        inputs, targets = self.mask_tokens(tokens, targets, numbers, mask_id(model))
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), reduction="sum")
        loss = loss / (targets != IGNORE_INDEX).sum().clamp(min=1)
        return loss + auxiliary_loss(model), loss

    def predictions(self, model: nn.Module, tokens: Tokens, targets: Tensor) -> tuple[Tensor, Tensor]:
        assert isinstance(tokens, Tensor)  # see check
        inputs, targets = self.mask_tokens(tokens, targets, hash_positions(tokens), mask_id(model))
        return model(inputs), targets

    def mask_tokens(self, tokens: Tensor, targets: Tensor, numbers: Tensor, mask: int) -> tuple[Tensor, Tensor]:
        """Return the model's inputs and targets, each [B, T].

        Args:
            tokens: token ids [B, T], all below `mask`.
            targets: targets [B, T] of the next token.
            numbers: two numbers in [0, 1) per position, [2, B, T]; the first chooses, the second is the random token.
            mask: id of [MASK].
        """
        choice, other = numbers
        inputs = torch.where(choice < 0.9 * self.mask_fraction, (other * mask).long(), tokens)
        inputs = torch.where(choice < 0.8 * self.mask_fraction, mask, inputs)
        chosen = (choice < self.mask_fraction) & (targets != IGNORE_INDEX)
        return inputs, torch.where(chosen, tokens, IGNORE_INDEX)

    def check(self, model: nn.Module, *, block_size: int, seq2seq: bool) -> None:
        super().check(model, block_size=block_size, seq2seq=seq2seq)
        if isinstance(model, EncoderDecoder):
            raise ValueError("model=encoder_decoder writes its target token by token: it needs objective=next_token")
        if isinstance(model, Ngram):
            raise ValueError("model=ngram counts the tokens that follow: it needs objective=next_token")
        if not isinstance(model, HasVocabSize):
            raise ValueError("objective=masked needs a model with the attribute vocab_size")


def mask_id(model: nn.Module) -> int:
    """Return the id of [MASK]: the last one of a model's vocabulary."""
    return cast(HasVocabSize, model).vocab_size - 1


def sum_scores(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return sums over the counted targets [B, T]: loss [nats], correct predictions, number of targets."""
    logits, targets = logits.flatten(0, 1), targets.flatten()
    loss = F.cross_entropy(logits.float(), targets, reduction="sum")
    return loss, (logits.argmax(dim=-1) == targets).sum(), (targets != IGNORE_INDEX).sum()


def auxiliary_loss(model: nn.Module) -> Tensor | int:
    """Return the sum of the submodules' `auxiliary_loss`, such as the load balancing of experts; 0 without any."""
    # Not isinstance with a protocol: torch.compile would not see an attribute that the same step has just set.
    return sum(cast(Tensor, m.auxiliary_loss) for m in model.modules() if hasattr(m, "auxiliary_loss"))


def hash_positions(tokens: Tensor) -> Tensor:
    """Return two pseudorandom numbers in [0, 1) per position, [2, B, T], that depend on its sequence [B, T] alone."""
    positions = fmix32(torch.arange(2 * tokens.shape[1], device=tokens.device))
    sequence = fmix32(tokens + positions[: tokens.shape[1]]).sum(dim=1, keepdim=True)
    numbers = fmix32(sequence + positions) >> 8  # float32 has 24 bits
    return numbers.unflatten(1, (2, -1)).movedim(1, 0) / 2**24


def fmix32(x: Tensor) -> Tensor:
    """Hash the lower 32 bits of each number: the finaliser of MurmurHash3 (Appleby, 2011)."""
    x = x & 0xFFFFFFFF
    x = (x ^ (x >> 16)) * 0x85EBCA6B & 0xFFFFFFFF
    x = (x ^ (x >> 13)) * 0xC2B2AE35 & 0xFFFFFFFF
    return x ^ (x >> 16)
