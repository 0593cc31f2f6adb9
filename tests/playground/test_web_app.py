"""What the playground's server answers, and what it refuses."""

import json

import pytest
import torch
from tests.playground.conftest import running

from minigpt.inference.sampling import generate_with_logits
from minigpt.playground import web_app
from minigpt.playground.model_views import NUM_NEIGHBORS, inspect_prompt, predict_next

PREDICT = {"checkpoint": "step_7.ckpt", "prompt": "To be", "tokens": [], "temperature": 1.0}
GENERATE = PREDICT | {"max_new_tokens": 4, "seed": 1}


def test_the_page_and_its_files_come_with_the_headers_that_protect_them(client):
    for path in ("/", "/page.js", "/page.css", "/icon.svg"):
        status, headers, _ = client.ask(path)
        assert status == 200
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers


def test_the_run_lists_its_checkpoints_once_each(client):
    _, _, about = client.ask("/api/run")
    labels = [(file["name"], file["label"]) for file in about["checkpoints"]]
    assert labels == [("step_3.ckpt", "step 3"), ("step_7.ckpt", "step 7, best")]
    assert about["first"] == "step_7.ckpt" and about["name"] == "run"
    assert about["model"]["missing"] == {} and about["model"]["example_prompt"] == "To be"


def test_a_prediction_is_the_models_and_the_filters(client, checkpoints):
    model = checkpoints.load("step_3.ckpt").model
    ids = torch.tensor(checkpoints.load("step_3.ckpt").tokenizer.encode("To be").astype("int64"))[None]
    own = model(ids).detach()[0, -1].softmax(dim=-1).tolist()
    _, _, all_kept = client.ask("/api/predict", PREDICT | {"checkpoint": "step_3.ckpt"})
    assert all_kept["kept"] == len(own)
    for candidate in all_kept["candidates"]:
        assert candidate["probability"] == candidate["unfiltered"]
        assert candidate["probability"] == pytest.approx(own[candidate["id"]], abs=1e-4)
    _, _, three = client.ask("/api/predict", PREDICT | {"checkpoint": "step_3.ckpt", "top_k": 3})
    assert three["kept"] == 3
    best = sorted(own)[-3:]
    assert [c["probability"] for c in three["candidates"][:4]] == pytest.approx(
        [p / sum(best) for p in reversed(best)] + [0], abs=1e-3
    )


def test_tokens_after_the_prompt_are_read_as_if_they_were_typed(client, checkpoints):
    ids = checkpoints.load("step_7.ckpt").tokenizer.encode("be").tolist()
    typed = client.ask("/api/predict", PREDICT | {"prompt": "To be"})[2]
    assert client.ask("/api/predict", PREDICT | {"prompt": "To ", "tokens": ids})[2] == typed
    assert client.generate(prompt="To be") == client.generate(prompt="To ", tokens=ids)
    assert client.generate(prompt="To be") != client.generate(prompt="To ")


def test_a_generation_is_that_of_generate_py_with_the_alternatives_of_each_step(client, checkpoints):
    loaded = checkpoints.load("step_7.ckpt")
    ids = torch.tensor(loaded.tokenizer.encode("To").astype("int64"))[None]
    options = {"max_new_tokens": 20, "temperature": 0.9, "top_k": 4}
    generator = torch.Generator().manual_seed(3)
    tokens = [int(t) for t, _ in generate_with_logits(loaded.model, ids, **options, generator=generator)]
    steps = client.generate(seed=3, **options)
    assert [step["token"]["id"] for step in steps] == tokens
    for step in steps:
        alternatives = step["alternatives"]
        assert step["token"] in alternatives and len(alternatives) == 4
        assert sum(a["probability"] for a in alternatives) == pytest.approx(1, abs=1e-3)
        shares = [a["probability"] for a in alternatives]
        assert shares == sorted(shares, reverse=True)


def test_temperature_0_draws_the_likeliest_token(client):
    for step in client.generate(temperature=0):
        assert [a["probability"] for a in step["alternatives"]] == [1.0]
        assert step["token"] == step["alternatives"][0]


def test_what_is_within_the_model_is_what_the_model_computes(checkpoints):
    loaded = checkpoints.load("step_7.ckpt")
    inside = inspect_prompt(loaded, "not to")
    ids = torch.tensor([inside["ids"]])
    assert inside["tokens"] == list("not to")
    maps = torch.tensor(inside["attention"]) / 1000
    assert torch.allclose(maps[0], loaded.model.attention_maps(ids)[0][0], atol=1e-3)
    table = loaded.model.embedding.weight.detach()
    token = inside["ids"][0]
    cosines = torch.cosine_similarity(table[token][None], table)
    cosines[token] = -1
    found = inside["embedding"][token]
    assert torch.allclose(torch.tensor(found["row"]), table[token], atol=1e-3)
    assert [n["text"] for n in found["neighbors"]] == [
        loaded.tokenizer.decode([i]) for i in cosines.topk(NUM_NEIGHBORS).indices.tolist()
    ]
    probabilities = loaded.model(ids).detach()[0].softmax(dim=-1)
    for cell, row in zip(inside["lens"][-1], probabilities, strict=True):
        assert cell[0] == (loaded.tokenizer.decode([int(row.argmax())]), pytest.approx(float(row.max()), abs=1e-4))


def test_of_a_long_text_the_model_reads_its_context_and_predicts_after_the_end(checkpoints):
    loaded = checkpoints.load("step_7.ckpt")  # a context of 8
    inside = inspect_prompt(loaded, "to be or not to be")
    assert inside["tokens"] == list("ot to be") and len(inside["attention"][0][0]) == 8
    options = {"tokens": [], "temperature": 1.0}
    assert predict_next(loaded, "to be or not to be", **options) == predict_next(loaded, "ot to be", **options)


REFUSED = [
    ("inspect", {"checkpoint": "step_7.ckpt", "prompt": ""}, 400, "at least one character"),
    ("inspect", {"checkpoint": "step_7.ckpt", "prompt": "東"}, 400, "outside the vocabulary"),
    ("inspect", {"checkpoint": "step_7.ckpt", "prompt": "\ud800"}, 400, "not UTF-8"),
    ("inspect", {"checkpoint": "step_7.ckpt", "prompt": "T" * 4001}, 400, "at most 4,000"),
    ("inspect", {"checkpoint": "step_9.ckpt", "prompt": "T"}, 400, "no such checkpoint"),
    ("inspect", {"checkpoint": "../config.yaml", "prompt": "T"}, 400, "no such checkpoint"),
    ("inspect", {"checkpoint": "step_7.ckpt", "prompt": 5}, 400, "prompt must be of type str"),
    ("inspect", {"checkpoint": "step_7.ckpt"}, 400, "missing: 'prompt'"),
    ("inspect", {"checkpoint": "step_7.ckpt", "prompt": "T", "x": 1}, 400, "unknown: 'x'"),
    ("inspect", ["T"], 400, "JSON object"),
    ("inspect", b"{", 400, "not JSON"),
    ("inspect", b"[" * 60000, 400, "not JSON"),
    ("inspect", b"T" * 70000, 413, "larger than 64 KiB"),
    ("predict", PREDICT | {"temperature": -1}, 400, "temperature must be at least 0"),
    ("predict", PREDICT | {"temperature": float("nan")}, 400, "temperature must be a finite number"),
    ("predict", PREDICT | {"temperature": True}, 400, "temperature must be of type"),
    ("predict", PREDICT | {"temperature": {"_target_": "os.system"}}, 400, "temperature must be a plain value"),
    ("predict", PREDICT | {"top_k": 0}, 400, "top_k must be at least 1"),
    ("predict", PREDICT | {"top_p": 1.5}, 400, "top_p must be"),
    ("predict", PREDICT | {"tokens": [999]}, 400, "tokens must be below"),
    ("predict", PREDICT | {"tokens": [-1]}, 400, "tokens must be a list of values at least 0"),
    ("predict", PREDICT | {"tokens": [{"_target_": "x"}]}, 400, "tokens must be a plain value"),
    ("generate", GENERATE | {"max_new_tokens": 10**9}, 400, "max_new_tokens must be at least 1 and at most 500"),
    ("generate", GENERATE | {"seed": 2**70}, 400, "seed must be a number of 64 bits"),
]


@pytest.mark.parametrize(("endpoint", "body", "status", "reason"), REFUSED)
def test_a_bad_request_costs_one_line(client, endpoint, body, status, reason):
    found, _, answer = client.ask(f"/api/{endpoint}", body)
    assert found == status
    assert reason in answer["error"] and list(answer) == ["error"]
    assert len(answer["error"].splitlines()) == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:8000"}, 421),
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Host": "192.168.0.1"}, 421),
        ({"Host": ""}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://127.0.0.1"}, 403),
        ({"Host": "localhost", "Origin": "http://evil-localhost"}, 403),
        ({"Host": "localhost", "Origin": "https://localhost"}, 403),
        ({"Host": "localhost:evil.example"}, 421),
        ({"Content-Type": "text/plain"}, 415),
        ({"Host": "localhost:9000", "Origin": "http://localhost:9000"}, 200),
        ({"Host": "LOCALHOST"}, 200),
    ],
)
def test_requests_of_other_sites_are_refused(client, headers, status):
    found, answered, _ = client.ask("/api/predict", PREDICT, headers=headers)
    assert found == status and "content-security-policy" in answered


def test_a_server_for_the_network_knows_addresses_and_its_own_name_alone(checkpoints):
    with running(checkpoints, host="box.example") as client:
        hosts = {"192.168.0.1:8000": 200, "[fe80::1]:80": 200, "box.example": 200, "evil.example": 421}
        assert {host: client.ask("/api/run", headers={"Host": host})[0] for host in hosts} == hosts


def test_a_failure_says_nothing_of_its_cause_to_the_client(checkpoints, monkeypatch, capfd):
    def fail(*arguments):
        raise RuntimeError("secret")

    monkeypatch.setattr(web_app, "inspect_prompt", fail)
    with running(checkpoints) as client:
        status, headers, answer = client.ask("/api/inspect", {"checkpoint": "step_7.ckpt", "prompt": "T"})
        assert client.ask("/api/run")[0] == 200, "the server goes on"
    assert status == 500 and "secret" not in json.dumps(answer) + str(headers)
    assert "RuntimeError: secret" in capfd.readouterr().err


@pytest.mark.parametrize(("path", "status"), [("/api/inspect", 405), ("/../server.py", 404), ("/%2e%2e/x", 404)])
def test_other_addresses_are_unknown(client, path, status):
    assert client.ask(path)[0] == status
