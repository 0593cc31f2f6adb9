"""Every figure of the README, of the experiments' comments and of docs/classics.md is the one in a file of results."""

import json
import re
import struct
from pathlib import Path

import pytest
import yaml
from benchmarks.classics import PAGE, RENAMED, tabulate
from benchmarks.mutants.__main__ import GOAL
from benchmarks.report import compose_config

from minigpt.config.build import build
from minigpt.model.size import count_parameters
from minigpt.training import wandb_service

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
NUMBERS = ["", "one", "two", "three", "four", "five"]
WORDS = {"32-true": "float32", "bf16-mixed": "bfloat16"}
BEFORE_PRECISIONS = "bf16-mixed"  # what the runs had in files of results that do not say it yet


def section(mark: str) -> tuple[dict, str]:
    """The file of results that a mark of the README names, and the text from there to the next mark."""
    (source,) = re.findall(rf"<!-- {mark}: (\S+) -->", README)
    text = README.split(source, 1)[1].split("<!--")[0]
    assert source in text, "the section links its file"
    return json.loads((ROOT / source).read_text()), " ".join(text.split())


def experiment(name: str) -> tuple[dict, str]:
    """The configuration of an experiment and the comments at the head of its file."""
    text = (ROOT / f"conf/experiment/{name}.yaml").read_text()
    comments = re.match(r"(?:#.*\n)+", text)
    assert comments is not None
    return compose_config(f"experiment={name}"), comments[0].replace("\n# ", " ")


def test_the_default_run_s_table():
    report, text = section("figures")
    ours, theirs = report["minigpt"], report["nanogpt"]
    losses = f"| validation loss | **{ours['val_loss']:.3f}** (exact) | {theirs['val_loss_estimate']:.3f} "
    assert losses in text
    for name, row in (("train_s", "training alone"), ("whole_program_s", "the whole program")):
        assert f"| {row} | **{ours[name]:.0f} s** | {theirs[name]:.0f} s |" in text
    assert f"medians of {len(report['minigpt_runs'])} runs" in text
    assert f"{report['times_faster_train_s']:.1f} times as fast" in text and report["options"] == []
    introduction = README.split("<!-- figures")[0]
    assert f"{ours['parameters'] / 1e6:.1f} million parameters" in introduction
    assert "less than half the time" in introduction and report["times_faster_whole_program_s"] > 2
    assert f"{ours['val_loss']:.3f} at its end](docs/curve.png)" in introduction


def test_the_table_and_its_sentence_name_the_precision_of_both_sides():
    report, text = section("figures")
    ours, theirs = (report[f"{who}_runs"][0] for who in ("minigpt", "nanogpt"))
    names = ours.get("precision", BEFORE_PRECISIONS), theirs.get("precision", "32-true")
    ours, theirs = (f"{WORDS[name]} (`{name}`)" for name in names)
    assert f"| precision of matrix products | {ours} | {theirs} |" in text
    if names[0] != names[1]:
        assert f"in {WORDS[names[0]]} against {WORDS[names[1]]}" in text


def test_the_picture_is_of_the_run_of_the_table():
    (source,) = re.findall(r"<!-- figures: (\S+) -->", README)
    if "curve" not in json.loads((ROOT / source).read_text())["minigpt_runs"][0]:
        assert source.endswith("2026-11-23.json"), "files of results have had curves since: make curve NANOGPT_DIR=..."
        return
    picture, position, found = (ROOT / "docs/curve.png").read_bytes(), 8, {}
    while position < len(picture):  # chunks of length, kind, content and checksum
        length, kind = struct.unpack(">I4s", picture[position : position + 8])
        if kind == b"tEXt":
            key, _, value = picture[position + 8 : position + 8 + length].partition(b"\0")
            found[key.decode()] = value.decode()
        position += length + 12
    assert found["Source"] == Path(source).name


def test_the_fast_recipe_and_generation():
    report, text = section("speed")
    found, config = report["time_to_loss"], experiment("fast_cpu")[0]
    precision = WORDS[found.get("precision", BEFORE_PRECISIONS)]
    assert f"{found['parameters'] / 1e6:.2f} million parameters" in text
    assert f"Its {found['steps']} steps take {found['train_s']:.1f} s of training in {precision}" in text
    assert config["trainer"]["max_steps"] == found["steps"] == found["runs"][0]["steps"]
    assert f"end at {found['val_loss']:.2f} (medians of {len(found['runs'])} seeds)" in text
    assert f"2,000 steps in float32 take {found['nanogpt_s']:.0f} s" in text
    assert f"{found['times_nanogpt']:.0f} times as long" in text and f"({found['goal']}, exact)" in text
    assert found["reached"] == len(found["runs"]), "it reaches the goal with every seed"
    generation = report["generation"]
    assert f"draws {generation['tokens_per_s']:.0f} characters a second" in text
    assert f"{generation['times']:.1f} times as many as in float32" in text


def test_the_same_model_beside_nanogpt_s_says_both_precisions():
    report, text = section("speed")
    rows = {row["precision"]: row for row in report["steps"].get("rows", [])}
    fastest = rows.get(BEFORE_PRECISIONS, report["steps"])
    claim = f"{fastest['times_nanogpt']:.2f} times as many tokens a second as nanoGPT, again in bfloat16"
    assert f"{claim} against nanoGPT's float32" in text
    if rows:
        assert f"with float32 on both sides {rows['32-true']['times_nanogpt']:.2f} times" in text
    else:
        assert "float32 on both sides is a row of its own in `make bench`, and not in these figures yet" in text


def test_the_recipes():
    report, text = section("recipes")
    record, ensemble = report["record"], report["record"]["ensemble_val_loss"]
    runs = record["runs"]
    assert (
        f"**{record['val_loss']:.3f}** (mean of {len(runs)} seeds, standard error {record['standard_error']:.3f})"
        in text
    )
    parameters = {run["parameters"] for run in runs}
    assert len(parameters) == 1, "one model"
    total = sum(run["parameters"] for run in runs)
    assert f"ensemble of the {NUMBERS[len(runs)]} models" in text
    assert f"{total / 1e6:.1f} million parameters, reaches {ensemble:.3f}" in text
    commits = {run["git_commit"].removesuffix("-dirty") for run in runs}
    changed = sum(run["git_commit"].endswith("-dirty") for run in runs)
    assert f"{NUMBERS[len(runs)]} seeds are from {NUMBERS[len(commits)]} commits of the code" in text
    assert f"{NUMBERS[changed]} of them with uncommitted changes" in text
    (later,) = report["record_with_chunked_attention"]["runs"]
    assert f"ends at {later['val_loss']:.3f} with seed {later['seed']}" in text
    assert 1.8 < runs[later["seed"] - 1]["train_s"] / later["train_s"] < 2.2, "a later one, twice as fast"
    table = README.split("## Use it")[1]
    assert f"in {later['train_s'] / 60:.0f} minutes a seed |" in table
    laptop = report["a100_on_a_laptop"]
    minutes = sum(run["train_s"] for run in laptop["runs"]) / len(laptop["runs"]) / 60
    assert f"reach {laptop['val_loss']:.3f} in {NUMBERS[round(minutes)]} minutes" in table


def test_what_the_recipes_are_compared_with():
    """nanoGPT's GPU model is built here, to count it; its loss is on the page that is linked beside it."""
    config = experiment("nanogpt_gpu")[0]["model"]
    theirs = count_parameters(build(config)(vocab_size=65))
    report, text = section("recipes")
    assert 1.75 < theirs / report["record"]["runs"][0]["parameters"] < 2.25 and "with twice the parameters" in text
    assert f"a context of {config['block_size']} characters" in text
    length = experiment("record")[0]["model"]["block_size"]
    assert f"A context of {length:,} is long enough" in text
    assert "[README](https://github.com/karpathy/nanoGPT) has 1.4697" in text


def test_what_was_chosen_on_the_last_tenth_is_what_the_recipes_have():
    text = " ".join(README.split("Some options were chosen by")[1].split("One of the five writes")[0].split())
    laptop, record, fast = (experiment(name)[0] for name in ("a100_on_a_laptop", "record", "fast_cpu"))
    assert f"learning rate {laptop['optimizer']['lr']} of `a100_on_a_laptop`, which `record` has too" in text
    assert record["optimizer"]["lr"] == laptop["optimizer"]["lr"]
    assert f"its {laptop['trainer']['max_steps']} steps" in text
    assert f"learning rate {fast['optimizer']['lr']} and the {fast['trainer']['max_steps']} steps of `fast_cpu`" in text
    assert f"batch size and {compose_config()['trainer']['max_steps']} steps" in text


def test_the_experiments_comments():
    recipes = json.loads((ROOT / "benchmarks/results/recipes_2026-11-23.json").read_text())
    comment = experiment("record")[1]
    assert f"{recipes['record']['val_loss']:.3f}, the mean of five seeds" in comment
    assert f"(standard error {recipes['record']['standard_error']:.3f})" in comment
    assert f"{recipes['record_with_chunked_attention']['runs'][0]['train_s'] / 60:.0f} minutes a seed" in comment
    laptop = recipes["a100_on_a_laptop"]
    assert f"{laptop['val_loss']:.3f} (mean of {len(laptop['runs'])} seeds)" in experiment("a100_on_a_laptop")[1]
    paper = recipes["attention_is_all_you_need"]
    said = f"{paper['last']['val_loss']:.2f} in {paper['run']['train_s'] / 60:.1f} minutes on one core, "
    said += f"{paper['average_last_n=5']['val_loss']:.2f} with average_last_n=5"
    assert said in experiment("attention_is_all_you_need")[1] and paper["run"]["threads"] == 1
    fast = section("speed")[0]["time_to_loss"]
    comment = experiment("fast_cpu")[1]
    assert f"{fast['val_loss']:.2f} in {fast['train_s']:.1f} s" in comment
    assert f"nanoGPT's steps take {fast['nanogpt_s']:.0f} s (float32) to {fast['goal']}" in comment


@pytest.mark.parametrize("file", sorted((ROOT / "conf").rglob("*.yaml")), ids=lambda file: file.stem)
def test_a_published_loss_has_its_link(file):
    for line in file.read_text().splitlines():
        if line.startswith("reference_loss: ") and yaml.safe_load(line)["reference_loss"] is not None:
            assert re.search(r" # https://\S+$", line), line


def test_a_run_waits_for_w_and_b_as_long_as_the_readme_says():
    """For the server to answer, for wandb to begin the run, and for its service to end before it begins offline."""
    assert "a run waits five seconds for it at most" in " ".join(README.split())
    seconds = wandb_service.PROBE_TIMEOUT_S, wandb_service.INIT_TIMEOUT_S, wandb_service.FINISH_TIMEOUT_S
    assert sum(seconds) <= 5
    used = wandb_service.wandb_settings()
    assert (used.init_timeout, used.finish_timeout) == seconds[1:]


def test_every_tenth_step_has_its_metrics():
    assert "every metric of every tenth step" in README and compose_config()["trainer"]["log_every_n_steps"] == 10


def test_the_sentence_about_mutation_testing():
    page = (ROOT / "CONTRIBUTING.md").read_text()
    (source,) = re.findall(r"<!-- mutants: (\S+) -->", page)
    report = json.loads((ROOT / source).read_text())
    total, survivors = report["packages"][-1], [row for row in report["mutants"] if row["status"] == "survived"]
    said = f"has {total['mutants']} bugs, of which {total['killed']} are noticed ({total['percent']} %)"
    assert said in " ".join(page.split()) and total["mutants"] == len(report["mutants"])
    assert len(survivors) == total["survived"] and all(row["explanation"] for row in survivors)
    assert total["percent"] >= GOAL and report["sample"] is None, "of the whole sample"


@pytest.mark.parametrize("name", re.findall(r"<!-- table: (\w+) -->", PAGE.read_text()))
def test_the_tables_of_the_classics(name):
    (source,) = re.findall(r"results/(classics_[\d-]+\.json)", PAGE.read_text())
    rows = json.loads((ROOT / "benchmarks/results" / source).read_text())[name]
    assert tabulate([row | {"label": RENAMED.get(row["label"], row["label"])} for row in rows]) in PAGE.read_text()
