"""The files around the code (workflows, containers, editor, contributing guide) agree with the code and run."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict
from packaging.specifiers import SpecifierSet

import minigpt
import minigpt.cli  # registers the resolvers that the configuration uses
from minigpt.config.check import check
from minigpt.config.packaged import CONF

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOWS = {p.stem: yaml.safe_load(p.read_text()) for p in sorted((ROOT / ".github/workflows").glob("*.yml"))}
LAUNCH = json.loads((ROOT / ".vscode/launch.json").read_text())["configurations"]
DEVCONTAINER = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
SUPPORTED = SpecifierSet(PYPROJECT["project"]["requires-python"])
PYTHONS = [f"3.{minor}" for minor in range(100) if SUPPORTED.contains(f"3.{minor}")]

FILES = [
    *("CONTRIBUTING.md", "SECURITY.md", "Dockerfile", ".pre-commit-config.yaml", ".devcontainer/devcontainer.json"),
    *(str(p.relative_to(ROOT)) for p in sorted((ROOT / ".github").rglob("*.*")) if p.is_file()),
]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
COMMANDS = sorted(set(re.findall(r"(?:^|`)python (src/\w+\.py[^`#\n]*)", GUIDE, re.MULTILINE)))
TINY = "model.num_layers=1 model.num_heads=2 model.dim=32 model.block_size=16 data.batch_size=8 trainer.max_steps=2"


def examples() -> dict[str, str]:
    """The files of the guide's examples, by the path in their first line; blocks of one file are joined."""
    files: dict[str, str] = {}
    for _, block in BLOCKS:
        if path := re.match(r"(?:# @package \S+\n)?# (my_\S+)\n", block):
            files[path[1]] = files.get(path[1], "") + block
    return files


def write_examples(directory: Path) -> None:
    """Write the files of the guide's examples below a directory."""
    for name, text in examples().items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)


@pytest.fixture(scope="module")
def example_directory(tmp_path_factory):
    """A directory with the files of the guide's examples."""
    directory = tmp_path_factory.mktemp("examples")
    write_examples(directory)
    return directory


def composed(command: str) -> dict:
    """The checked configuration of a command, in the current directory; of a sweep, that of its first job."""
    script, *options = shlex.split(command)
    if "--config-dir" in options:
        place = options.index("--config-dir")
        directory = Path(options[place + 1]).absolute()
        options[place : place + 2] = [f"hydra.searchpath=[file://{directory}]"]
    if "-m" in options:
        options = [re.sub(r"^(\w+=[^,]+),.*", r"\1", option) for option in options if option != "-m"]
    name = Path(script).stem
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(name, options, return_hydra_config=True)
    config.hydra.runtime.cwd = str(Path.cwd())
    HydraConfig.instance().set_config(config)
    with open_dict(config):
        own = config.copy()
        del own["hydra"]
    return check(own, name)


def code_of(file: str) -> str:
    """What is code in a file: of Markdown, code spans and shell blocks; elsewhere, all but comments."""
    text = (ROOT / file).read_text()
    if file.endswith(".md"):
        return "\n".join([*re.findall(r"`([^`\n]+)`", text), *re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S)])
    return re.sub(r"(^|\s)#.*", "", text)


@pytest.mark.parametrize("file", FILES)
def test_make_targets_exist(file):
    named = re.findall(r"\bmake ([a-z][a-z-]*)", code_of(file))
    for target in named:
        assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target
    if file in ("CONTRIBUTING.md", "Dockerfile", ".pre-commit-config.yaml") or "workflows" in file:
        assert named


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_workflows_may_only_read_and_call_make(workflow):
    definition = WORKFLOWS[workflow]
    assert definition["permissions"] == {"contents": "read"} and "concurrency" in definition
    for job in definition["jobs"].values():
        assert job["timeout-minutes"] <= 120 and "permissions" not in job
        for step in job["steps"]:
            assert re.fullmatch(r"make [a-z-]+", step["run"]) if "run" in step else "uses" in step


def test_actions_are_of_github_and_of_one_version_each():
    """Pinned by commit, with the version it belongs to, or by the tag of a major version."""
    lines = [line for p in (ROOT / ".github/workflows").iterdir() for line in p.read_text().splitlines()]
    used = [line.split("uses:")[1].strip() for line in lines if "uses:" in line]
    assert used
    for action in used:
        assert re.fullmatch(r"actions/[a-z-]+@([0-9a-f]{40} # v\d+\.\d+\.\d+|v\d+)", action), action
    assert len(set(used)) == len({action.split("@")[0] for action in used})


def test_ci_runs_on_every_supported_python():
    assert len(PYTHONS) >= 3
    assert WORKFLOWS["ci"]["jobs"]["test"]["strategy"]["matrix"]["python"] == PYTHONS
    steps = [step for job in WORKFLOWS["nightly"]["jobs"].values() for step in job["steps"]]
    versions = [step["with"]["python-version"] for step in steps if "setup-python" in step.get("uses", "")]
    assert versions and set(versions) <= set(PYTHONS)
    ci = [step["run"] for step in WORKFLOWS["ci"]["jobs"]["test"]["steps"] if "run" in step]
    assert ci[-2:] == ["make check", "make test"] and all(
        f"\n{line}\n" in (ROOT / ".ci/run").read_text() for line in ci[-2:]
    )


def test_artifacts_are_what_the_targets_write():
    steps = [step for job in WORKFLOWS["nightly"]["jobs"].values() for step in job["steps"]]
    paths = [step["with"]["path"] for step in steps if "upload-artifact" in step.get("uses", "")]
    assert any(path in MAKEFILE for path in paths), "make sbom"
    assert any(list(ROOT.glob(path)) for path in paths), "make faults"


def test_the_image_has_a_supported_python_and_no_root():
    (version,) = re.findall(r"^ARG PYTHON_VERSION=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert version in PYTHONS
    users = re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE)
    assert users and not users[-1].startswith(("0", "root"))
    stages = re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.MULTILINE)
    assert {"cpu", "cuda"} <= set(stages) and DEVCONTAINER["build"]["target"] in stages
    for stage in re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[2:]:
        (command,) = re.findall(r"^CMD (\[.*\])$", stage, re.MULTILINE)
        assert json.loads(command) == ["python", "src/train.py"]


def test_the_image_is_made_of_files_that_are_there():
    for sources in re.findall(r"^COPY (?:--\S+ )*(.+) \S+$", DOCKERFILE, re.MULTILINE):
        assert all((ROOT / source).exists() for source in sources.split()), sources
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {".git", ".venv*", "data/*", "logs/*"} <= set(ignored)
    assert {line.split("/")[0] for line in ignored if line.startswith("!")} == {"!data", "!logs"}
    assert DEVCONTAINER["workspaceFolder"] in re.findall(r"^WORKDIR (\S+)$", DOCKERFILE, re.MULTILINE)


def test_hooks_are_the_tools_of_the_project():
    (local,) = [repository for repository in HOOKS if repository["repo"] == "local"]
    extras = " ".join(PYPROJECT["project"]["optional-dependencies"]["test"])
    for hook in local["hooks"]:
        tool, name, *_ = shlex.split(hook["entry"])
        assert tool == "make" or (tool.startswith(".venv/bin/") and f"{Path(tool).name}>=" in extras), hook["id"]
        assert tool != "make" or re.search(rf"^{name}:", MAKEFILE, re.MULTILINE)
    assert all(re.fullmatch(r"v\d+\.\d+\.\d+", repository["rev"]) for repository in HOOKS if repository != local)


def test_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == minigpt.__version__
    assert citation["license"] == PYPROJECT["project"]["license"]
    assert [
        author["name"].casefold() in (ROOT / "LICENSE").read_text().casefold() for author in citation["authors"]
    ] == [True]


@pytest.mark.parametrize("form", ["bug_report", "feature_request"])
def test_issue_forms_ask_and_require(form):
    body = yaml.safe_load((ROOT / f".github/ISSUE_TEMPLATE/{form}.yml").read_text())["body"]
    asked = [field for field in body if field["type"] != "markdown"]
    ids = [field["id"] for field in asked]
    assert len(set(ids)) == len(ids) and any(field.get("validations", {}).get("required") for field in asked)
    if form == "bug_report":
        assert {"version", "command", "summary", "log"} <= set(ids)


@pytest.mark.parametrize("configuration", LAUNCH, ids=lambda configuration: configuration["name"])
def test_launch_configurations_start(configuration):
    assert configuration["cwd"] == "${workspaceFolder}"
    if "program" not in configuration:
        assert configuration["module"] == "pytest" and "${file}" in configuration["args"]
        return
    program = configuration["program"].removeprefix("${workspaceFolder}/")
    assert (ROOT / program).is_file()
    assert composed(shlex.join([program, *configuration["args"]]))


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md"])
def test_paths_exist(page):
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    prose = re.sub(r"^```(?:python|yaml)\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    named = re.findall(r"(?<![\w./-])((?:src|conf|tests|docs|benchmarks|\.ci|\.github)/[\w./-]*\w)", prose)
    named += re.findall(r"`([\w.-]+\.(?:md|txt|toml|cff))`", prose)
    assert links + named
    for path in links + named:
        assert (ROOT / path).exists(), path


def test_anchors_exist():
    headings = {
        re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", GUIDE, re.M)
    }
    anchors = re.findall(r"\]\(#([^)]+)\)", GUIDE)
    assert anchors and set(anchors) <= headings


def test_named_tests_and_registries_exist():
    named = re.findall(r"`(\w+)`(?: of `(\w+)`)? in `(tests/[\w/]+\.py)`", GUIDE)
    assert len(named) >= 6
    for *names, file in named:
        for name in filter(None, names):
            assert re.search(rf"\b{name}\b", (ROOT / file).read_text()), f"{name} in {file}"


def test_every_group_of_components_has_an_example():
    """Each group that a user extends, and each kind of component of the table."""
    groups = {str(Path(name).parent.relative_to("my_conf")) for name in examples() if name.startswith("my_conf/")}
    rows = re.findall(r"^\| [\w ]+ \| .+ \| `conf/([\w/]+)/` \|", GUIDE, re.MULTILINE)
    assert len(rows) == 14 and groups == set(rows)


def test_every_example_is_used_by_a_command():
    for name in examples():
        if name.startswith("my_conf/"):
            group, choice = str(Path(name).parent.relative_to("my_conf")), Path(name).stem
            assert any(f" {group}={choice}" in command for command in COMMANDS), name


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_compose_and_pass_the_checks(command, example_directory, monkeypatch):
    monkeypatch.chdir(example_directory)
    monkeypatch.syspath_prepend(example_directory)
    assert composed(command)["paths"]


def test_annotations_of_the_examples_are_checked(example_directory, monkeypatch):
    monkeypatch.chdir(example_directory)
    monkeypatch.syspath_prepend(example_directory)
    choice = "src/train.py --config-dir my_conf model/attention=normed_values"
    with pytest.raises(ValueError, match=r"model\.attention\.scale=0 must be more than 0"):
        composed(f"{choice} model.attention.scale=0")
    with pytest.raises(ValueError, match=r"did you mean '\+?model\.attention\.scale'"):
        composed(f"{choice} +model.attention.scal=1")


def test_the_examples_train_resume_and_generate(cli, tmp_path):
    write_examples(tmp_path)
    own = ["--config-dir", "my_conf"]
    done = cli("train.py", *own, "experiment=my_recipe", "data=synthetic", "data.num_chars=20000", *TINY.split())
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (tmp_path / "logs/runs").iterdir()
    assert json.loads((run / "summary.json").read_text())["steps"] == 2
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    done = cli("train.py", *own, f"resume={run}", "trainer.max_steps=4")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((run / "summary.json").read_text())["steps"] == 4
    done = cli("generate.py", *own, f"run={run}", "prompt=O", "max_new_tokens=4")
    assert done.returncode == 0 and done.stdout.startswith("O"), done.stdout + done.stderr
    for script, option in (("train.py", f"resume={run}"), ("generate.py", f"run={run}")):
        refused = cli(script, option)
        assert refused.returncode == 2 and "my_components" in refused.stderr, "a run directory may come from anybody"


def test_the_example_of_a_tokenizer_trains(cli, tmp_path):
    write_examples(tmp_path)
    done = cli("train.py", "--config-dir", "my_conf", "debug=fast", "data/tokenizer=pair", "trainer.max_steps=1")
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (tmp_path / "logs/debug").iterdir()
    assert "PairTokenizer" in (run / "config.yaml").read_text()
