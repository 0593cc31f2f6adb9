"""Models without attention: causality, caches, and n-gram counts against hand-worked ones."""

from collections import Counter
from functools import partial

import pytest
import torch

from minigpt.model.bag_of_words import BagOfWords
from minigpt.model.layers import MLP, NoMLP
from minigpt.model.ngram import EMPTY, Ngram
from minigpt.model.rnn import RNN
from minigpt.model.size import flops_per_token

V, T = 7, 12
MODELS = {
    "bag of words": partial(BagOfWords, dim=8),
    "linear bag of words": partial(BagOfWords, dim=8, mlp=NoMLP),
    "lstm": partial(RNN, num_layers=2, dim=8, cell="lstm"),
    "gru": partial(RNN, num_layers=1, dim=8, cell="gru", tie_head=True),
    "rnn": partial(RNN, num_layers=2, dim=8, cell="rnn", dropout=0.1),
    "ngram": partial(Ngram, order=4, table_size=256),
}


@pytest.fixture(params=MODELS.values(), ids=MODELS)
def model(request):
    model = request.param(vocab_size=V, block_size=T)
    model(torch.randint(V, (8, T)))  # so that the n-gram model has counts
    return model.eval()


def test_a_changed_token_changes_later_predictions_alone(model):
    tokens = torch.randint(V, (1, T))
    changed = tokens.clone()
    changed[0, 6] = (changed[0, 6] + 1) % V
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(after[:, :6], before[:, :6])
    assert not torch.allclose(after[:, 6], before[:, 6])


def test_a_cache_changes_nothing(model):
    tokens = torch.randint(V, (2, T))
    cache = model.make_cache()
    model(tokens, cache)
    cache.clear()
    pieces = [model(tokens[:, a:b], cache) for a, b in ((0, 5), (5, 6), (6, 9), (9, T))]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens))
    assert cache.length == T


def test_sequences_of_a_cache_can_be_reordered(model):
    tokens, order = torch.randint(V, (3, T)), torch.tensor([2, 0, 0])
    cache = model.make_cache()
    model(tokens[:, :8], cache)
    cache.reorder(order)
    logits = model(tokens[:, 8:], cache)
    torch.testing.assert_close(logits, model(torch.cat((tokens[order, :8], tokens[:, 8:]), dim=1))[:, 8:])


def test_a_bag_has_no_order():
    model = BagOfWords(vocab_size=V, block_size=T, dim=8, mlp=MLP).eval()
    logits = model(torch.tensor([[1, 2, 3, 3], [3, 1, 3, 2], [1, 2, 2, 3]]))[:, -1]
    torch.testing.assert_close(logits[0], logits[1])
    assert not torch.allclose(logits[0], logits[2]), "counts matter"


def test_recurrent_matrices_count_as_floating_point_operations():
    model = RNN(vocab_size=V, block_size=T, num_layers=2, dim=8, cell="lstm")
    assert flops_per_token(model, T) == 6 * (2 * 2 * 4 * 8 * 8 + 8 * V)  # 4 gates, each 8 x 8 twice


def counted(sequences, **options):
    """An n-gram model that has counted sequences of token ids, one after another."""
    model = Ngram(**{"vocab_size": 3, "block_size": 8, "table_size": 64} | options)
    for sequence in sequences:
        model(torch.tensor([sequence]))
    return model.eval()


def test_ngram_probabilities_equal_hand_worked_ones():
    model = counted([[0, 1, 0, 1, 1]], order=2)
    # The predicted tokens were 1, 0, 1, 1: p_1 = (c + 2 / 3) / (4 + 2) = 5/18, 11/18, 2/18.
    # After 0 came 1, twice: (c + 1 p_1) / (2 + 1). After 1 came 0 and 1: (c + 2 p_1) / (2 + 2). After 2 came nothing.
    expected = [[5 / 54, 47 / 54, 2 / 54], [7 / 18, 10 / 18, 1 / 18], [5 / 18, 11 / 18, 2 / 18]]
    torch.testing.assert_close(model(torch.tensor([[0, 1, 2]]))[0].exp(), torch.tensor(expected))


def test_ngram_counts_are_exact():
    sequences = torch.randint(5, (6, 40)).tolist()
    model = counted(sequences, vocab_size=5, order=4, table_size=256)
    grams = Counter(tuple(s[i : i + n]) for s in sequences for n in range(2, 5) for i in range(len(s) - n + 1))
    grams += Counter(tuple(s[i : i + 1]) for s in sequences for i in range(1, len(s)))  # the first is not predicted
    assert model.counts.sum() == grams.total() and len(grams) > 150
    for gram, count in grams.items():
        context = torch.tensor([gram[:-1]], dtype=torch.long)
        key = model.context_keys(context)[len(gram) - 1, 0, -1] if len(gram) > 1 else torch.tensor(0)
        slot, found = model.find(key)
        assert found and model.counts[slot, gram[-1]] == count


def test_ngram_predicts_before_it_counts():
    model = Ngram(vocab_size=V, block_size=T, order=3, table_size=256)
    tokens = torch.randint(V, (2, T))
    torch.testing.assert_close(model(tokens).exp(), torch.full((2, T, V), 1 / V))
    second = model(tokens)
    assert not torch.allclose(second[0, -1], second[0, -1, 0]), "the first call was counted"
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.eval()(tokens)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    fresh = Ngram(vocab_size=V, block_size=T, order=3, table_size=256)
    fresh.load_state_dict(state)
    assert torch.equal(fresh.eval()(tokens), model(tokens))


@pytest.mark.parametrize("size", [40, 8])
def test_ngram_probabilities_sum_to_one_even_when_the_table_is_full(size):
    model = counted(torch.randint(3, (5, 30)).tolist(), order=4, table_size=size)  # of 1 + 3 + 9 + 27 contexts
    held = model.contexts[model.contexts != EMPTY]
    assert len(held) == len(held.unique()) == size
    torch.nn.init.normal_(model.log_weights)
    torch.testing.assert_close(model(torch.randint(3, (4, 8))).exp().sum(-1), torch.ones(4, 8))


def test_ngram_weights_are_learned():
    model = counted([[0, 1, 0, 1, 1]], order=3)
    model(torch.tensor([[0, 1, 0, 2]]))[0, 2, 2].backward()
    assert model.log_weights.grad.isfinite().all() and model.log_weights.grad.ne(0).all()


def test_an_ngram_order_beyond_64_bits_is_refused():
    with pytest.raises(ValueError, match=r"lower model\.order"):
        Ngram(vocab_size=65, block_size=T, order=12, table_size=8)
