"""Models without attention: causal, the same with a cache, and n-grams against counting by hand."""

from collections import Counter
from functools import partial

import pytest
import torch

from minigpt.model.bag_of_words import BagOfWords
from minigpt.model.gpt import flops_per_token
from minigpt.model.mlp import MLP, NoMLP
from minigpt.model.ngram import EMPTY, Ngram
from minigpt.model.rnn import RNN

V, T = 7, 12
MODELS = {
    "bag of words": partial(BagOfWords, dim=8),
    "linear bag of words": partial(BagOfWords, dim=8, mlp=NoMLP),
    "lstm": partial(RNN, num_layers=2, dim=8, cell="lstm"),
    "gru": partial(RNN, num_layers=1, dim=8, cell="gru", tie_head=True),
    "rnn": partial(RNN, num_layers=2, dim=8, cell="rnn", dropout=0.1),
    "ngram": partial(Ngram, order=4, rows=256),
}


@pytest.fixture(params=MODELS.values(), ids=MODELS)
def model(request):
    model = request.param(vocab_size=V, block_size=T)
    model(torch.randint(V, (8, T)))  # an n-gram model counts
    return model.eval()


def test_changed_tokens_change_what_follows_alone(model):
    tokens = torch.randint(V, (1, T))
    changed = tokens.clone()
    changed[0, 6] = (changed[0, 6] + 1) % V
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(after[:, :6], before[:, :6])
    assert not torch.allclose(after[:, 6], before[:, 6])


def test_cache_equals_reading_all_at_once(model):
    tokens = torch.randint(V, (2, T))
    cache = model.make_cache()
    model(tokens, cache)
    cache.clear()
    pieces = [model(tokens[:, a:b], cache) for a, b in ((0, 5), (5, 6), (6, 9), (9, T))]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens))
    assert cache.length == T


def test_a_bag_has_no_order():
    model = BagOfWords(vocab_size=V, block_size=T, dim=8, mlp=MLP).eval()
    logits = model(torch.tensor([[1, 2, 3, 3], [3, 1, 3, 2], [1, 2, 2, 3]]))[:, -1]
    torch.testing.assert_close(logits[0], logits[1])
    assert not torch.allclose(logits[0], logits[2]), "how often a token came does count"


def test_recurrent_layers_are_matrix_products():
    model = RNN(vocab_size=V, block_size=T, num_layers=2, dim=8, cell="lstm")
    assert flops_per_token(model, T) == 6 * (2 * 2 * 4 * 8 * 8 + 8 * V)  # 4 gates, each 8 x 8 twice


def counted(batch, **options):
    """An n-gram model that has read rows of token ids, one by one."""
    model = Ngram(**{"vocab_size": 3, "block_size": 8, "rows": 64} | options)
    for row in batch:
        model(torch.tensor([row]))
    return model.eval()


def test_ngram_probabilities_equal_hand_worked_ones():
    model = counted([[0, 1, 0, 1, 1]], order=2)
    # 1, 0, 1, 1 were predicted: p_1 = (c + 2 / 3) / (4 + 2) = 5/18, 11/18, 2/18.
    # 0 was followed twice, by 1: (c + 1 p_1) / (2 + 1). 1 was, by 0 and by 1: (c + 2 p_1) / (2 + 2). 2 was not.
    expected = [[5 / 54, 47 / 54, 2 / 54], [7 / 18, 10 / 18, 1 / 18], [5 / 18, 11 / 18, 2 / 18]]
    torch.testing.assert_close(model(torch.tensor([[0, 1, 2]]))[0].exp(), torch.tensor(expected))


def test_ngram_counts_are_exact():
    rows = torch.randint(5, (6, 40)).tolist()
    model = counted(rows, vocab_size=5, order=4, rows=256)
    grams = Counter(tuple(row[i : i + n]) for row in rows for n in range(2, 5) for i in range(len(row) - n + 1))
    grams += Counter(tuple(row[i : i + 1]) for row in rows for i in range(1, len(row)))  # the first is not predicted
    assert model.counts.sum() == grams.total() and len(grams) > 150
    for gram, count in grams.items():
        context = torch.tensor([gram[:-1]], dtype=torch.long)
        number = model.number(context)[len(gram) - 1, 0, -1] if len(gram) > 1 else torch.tensor(0)
        row, found = model.find(number)
        assert found and model.counts[row, gram[-1]] == count


def test_ngram_predicts_before_it_counts():
    model = Ngram(vocab_size=V, block_size=T, order=3, rows=256)
    tokens = torch.randint(V, (2, T))
    torch.testing.assert_close(model(tokens).exp(), torch.full((2, T, V), 1 / V))
    second = model(tokens)
    assert not torch.allclose(second[0, -1], second[0, -1, 0]), "the first reading was counted"
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.eval()(tokens)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    fresh = Ngram(vocab_size=V, block_size=T, order=3, rows=256)
    fresh.load_state_dict(state)
    assert torch.equal(fresh.eval()(tokens), model(tokens))


@pytest.mark.parametrize("rows", [40, 8])
def test_ngram_probabilities_sum_to_one_even_when_the_table_is_full(rows):
    model = counted(torch.randint(3, (5, 30)).tolist(), order=4, rows=rows)  # of 1 + 3 + 9 + 27 contexts
    held = model.contexts[model.contexts != EMPTY]
    assert len(held) == len(held.unique()) == rows
    torch.nn.init.normal_(model.log_weights)
    torch.testing.assert_close(model(torch.randint(3, (4, 8))).exp().sum(-1), torch.ones(4, 8))


def test_ngram_weights_are_learned():
    model = counted([[0, 1, 0, 1, 1]], order=3)
    model(torch.tensor([[0, 1, 0, 2]]))[0, 2, 2].backward()
    assert model.log_weights.grad.isfinite().all() and model.log_weights.grad.ne(0).all()


def test_ngram_of_too_long_contexts_is_refused():
    with pytest.raises(ValueError, match=r"lower model\.order"):
        Ngram(vocab_size=65, block_size=T, order=12, rows=8)
