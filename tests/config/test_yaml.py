"""Every configuration file: composed, checked, built, documented and tested here."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import open_dict

import minigpt.cli  # noqa: F401  registers the resolvers that the files use
from minigpt.config.check import check
from minigpt.config.errors import ConfigError
from minigpt.config.packaged import CONF, components, packaged_targets
from minigpt.config.schema import COMMANDS
from minigpt.config.signature import find_definition, read_signature

FILES = sorted(str(f.relative_to(CONF)) for f in CONF.rglob("*.yaml"))
EXTRA = {  # what a choice needs on the command line besides its own name
    "model/bigram.yaml": ["scheduler=constant"],
    "model/attention/bidirectional.yaml": ["objective=masked"],
    "model/multi_token.yaml": ["objective=multi_token"],
    "objective/multi_token.yaml": ["model=multi_token"],
    "data/text.yaml": [f"data.path={__file__}"],
    "data/denoising.yaml": ["model=encoder_decoder"],
    "data/denoising_synthetic.yaml": ["model=encoder_decoder"],
    "model/encoder_decoder.yaml": ["data=denoising"],
    "hparams_search/optuna.yaml": None,  # composed only where the extra is installed
}


def composed(command: str, *options: str):
    """The checked configuration of a command line."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(command, list(options), return_hydra_config=True)
    config.hydra.runtime.cwd = str(Path.cwd())
    HydraConfig.instance().set_config(config)
    with open_dict(config):
        own = config.copy()
        del own["hydra"]
    return check(own, command)


def command_of(file: str) -> str:
    """The option that chooses a file. Experiments are one group, whatever folder they lie in."""
    group, _, choice = file.removesuffix(".yaml").rpartition("/")
    if group.startswith("experiment/"):
        group, choice = "experiment", file.removesuffix(".yaml").removeprefix("experiment/")
    return f"{group}={choice}"


def options_of(file: str) -> list[str]:
    """The command line that chooses a file, with what it needs."""
    return [command_of(file), *EXTRA.get(file, [])]


CHOICES = [
    f
    for f in FILES
    if "/" in f and not f.startswith("hydra") and f != "data/_base.yaml" and EXTRA.get(f, []) is not None
]


@pytest.mark.parametrize("file", CHOICES)
def test_choice_composes_and_passes_the_checks(file):
    config = composed("train", *options_of(file))
    assert config["model"]["_target_"]


@pytest.mark.parametrize("command", COMMANDS)
def test_command_composes(command):
    needed = {"train": [], "export": ["run=latest", "output=x.safetensors"], "report": ["runs=latest"]}
    assert composed(command, *needed.get(command, ["run=latest"]))


def test_a_wrong_choice_of_one_option_is_refused():
    with pytest.raises(ConfigError, match="did you mean 'gru'"):
        composed("train", "model=rnn", "model.cell=gnu")


@pytest.mark.parametrize("file", [f for f in CHOICES if not f.startswith(("experiment", "debug", "hparams_search"))])
def test_choice_builds_what_it_names(file):
    """Partial components are completed later; their options were checked against the signature."""
    config = composed("train", *options_of(file))
    group = file.split("/")[0]
    for path, node in components({group: config[group]}):
        if node.get("_partial_") or group in ("trainer", "data"):
            built = instantiate({**node, "_partial_": True}, _convert_="all")
            assert callable(built), path
        else:
            assert instantiate(node, _convert_="all") is not None, path


@pytest.mark.parametrize("target", sorted(packaged_targets()))
def test_signature_read_from_source_is_the_real_one(target):
    import importlib
    import inspect

    module, _, name = target.rpartition(".")
    real = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    read = read_signature(target)
    assert find_definition(target) is not None
    named = {n for n, p in real.items() if p.kind is not p.VAR_KEYWORD and p.kind is not p.VAR_POSITIONAL}
    assert named <= set(read)
    if not any(p.kind is p.VAR_KEYWORD for p in real.values()):
        assert named == set(read)


@pytest.mark.parametrize("file", [f for f in FILES if f != "data/_base.yaml" and f != "hydra/default.yaml"])
def test_file_begins_with_a_command_that_uses_it(file):
    lines = [line for line in (CONF / file).read_text().splitlines() if not line.startswith("# @package")]
    assert re.match(r"# python src/\w+\.py", lines[0]), "the first line is the command that runs it"
    own = (
        "default",
        "train",
        "evaluate",
        "generate",
        "export",
        "report",
        "playground",
        "process",
    )  # chosen without being named
    named = command_of(file) in lines[0] or Path(file).stem in own
    assert named, f"the command must name {command_of(file)}"


@pytest.mark.parametrize("file", FILES)
def test_file_is_small(file):
    assert len((CONF / file).read_text().splitlines()) <= 36


def test_experiment_names_what_it_should_reach():
    for file in (CONF / "experiment").rglob("*.yaml"):
        assert re.search(r"\d\.\d+", file.read_text().splitlines()[2]), f"{file.name}: the third line gives the figure"
