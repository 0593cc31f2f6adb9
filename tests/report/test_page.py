"""The page of a report: what it holds, and that it needs nothing from outside."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import altair as alt
import pytest
from tests.report.conftest import write_checkpoint, write_run

from hydra_plugins.sweep_callback import report_sweep
from minigpt.report import load_writer
from minigpt.report.figures import make_figures, thin
from minigpt.report.page import PAGE, as_script_data, spread, write_report
from minigpt.report.sources import find_runs, read_runs


class Elements(HTMLParser):
    """The elements of a page, with their attributes, and the text of each script."""

    def __init__(self, page):
        super().__init__()
        self.found, self.scripts, self.in_script = [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.in_script = tag == "script"
        if self.in_script:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.in_script = False

    def handle_data(self, data):
        if self.in_script:
            self.scripts[-1] += data

    def attributes(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture
def page(sweep):
    """The page of the sweep, with one job that is damaged."""
    (sweep / "3" / "metrics.csv").write_text("no,columns\n1,2\n")
    return write_report(str(sweep), sweep)


def test_a_page_of_a_sweep(sweep, page, capsys):
    text = page.read_text()
    assert page == sweep / PAGE and 800_000 < len(text) < 3_000_000
    elements = Elements(text)
    policy, _, color = (m.get("content") for m in elements.attributes("meta")[1:4])
    data, library, script = elements.scripts
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in (library, script)]
    assert policy.startswith("default-src 'none'; script-src") and re.findall(r"'sha256-(.*?)'", policy) == hashes
    assert color == "light dark" and "unsafe-eval" not in policy
    assert set(json.loads(data)["specs"]) == {"val_loss", "train_loss", "heat_map"}
    assert not [a for _, a in elements.found if any(k in a for k in ("src", "srcset", "onclick"))]
    assert all(a["href"].startswith("#") for a in elements.attributes("a"))
    assert all(t.get("scope") for t in elements.attributes("th"))
    assert len(elements.attributes("caption")) == len(elements.attributes("table")) == 4
    labels = [a.get("aria-label") for a in elements.attributes("div") if "chart" in a.get("class", "")]
    assert len(labels) == 3 and "Thick: the best run, 7: optimizer=muon model.dim=64 seed=2" in labels[0]
    assert "optimizer=muon model.dim=64 has 0.3" in text and "fewer bits per character" in text
    assert "step 30 &lt;i&gt;" in text and "<i>" not in text.replace(library, "")
    assert "metrics.csv is damaged" in text
    files = {f"{name}.{kind}" for name in ("val_loss", "train_loss", "heat_map") for kind in ("png", "svg")}
    assert {path.name for path in (sweep / "report").iterdir()} == files
    assert (sweep / "report" / "heat_map.png").read_bytes().startswith(b"\x89PNG")


def test_figures_of_three_options_and_of_one_run(sweep):
    runs = read_runs(find_runs(str(sweep), sweep)[0])
    for number, run in enumerate(runs):
        run.options = [*run.options, f"data.batch_size={number % 2}"]
    names = [figure.name for figure in make_figures(runs)]
    assert names == ["val_loss", "train_loss", "parallel_coordinates", "importances"]
    assert [figure.name for figure in make_figures(runs[:1])] == ["val_loss", "train_loss"]
    for figure in make_figures(runs):
        alt.Chart.from_dict(figure.spec)  # which raises an error if it is not Vega-Lite: make_figures skips the check


def test_other_tokenizers_are_drawn_in_bits_per_character(sweep):
    bpe = {"data": {"tokenizer": {"_target_": "minigpt.data.tokenizer.bpe.BPETokenizer"}}}
    write_run(sweep / "8", ["data/tokenizer=bpe"], bpc=1.0, config=bpe)
    assert make_figures(read_runs(find_runs(str(sweep), sweep)[0]))[0].name == "val_bpc"


@pytest.mark.parametrize(("number", "length"), [(1, 1), (2, 2), (1000, 101), (100, 101)])
def test_a_curve_is_thinned_but_for_its_ends(number, length):
    points = [(step, float(step)) for step in range(number)]
    thinned = thin(points, 100)
    assert (thinned[0], thinned[-1]) == (points[0], points[-1]) and len(thinned) <= length


def test_samples_are_spread_from_the_first_to_the_last():
    assert spread(range(30), 4) == [0, 10, 19, 29] and spread([1, 2], 4) == [1, 2]


def test_data_cannot_end_its_script():
    assert "</script" not in as_script_data({"name": "</script><script>alert(1)"})


def test_without_the_plotting_libraries_one_line_names_the_extra(monkeypatch):
    monkeypatch.setattr("minigpt.report.LIBRARIES", ("altair", "a_library_that_is_not_there"))
    with pytest.raises(ValueError, match=r"pip install .*\[report\]"):
        load_writer()


def test_a_sweep_ends_with_its_report_or_a_line_that_says_why_not(sweep, monkeypatch, capsys):
    report_sweep(sweep, "data")
    assert capsys.readouterr().out == f"report    {sweep / PAGE}\n" and (sweep / PAGE).is_file()
    monkeypatch.setattr("minigpt.report.LIBRARIES", ("a_library_that_is_not_there",))
    report_sweep(sweep, "data")
    said = capsys.readouterr().out
    assert said.startswith("no report a report needs Altair") and said.count("\n") == 1


def test_a_link_in_the_place_of_the_figures_is_not_followed(tmp_path):
    run = write_run(tmp_path / "one", [], bpc=2.0)
    (tmp_path / "elsewhere").mkdir()
    (run / "report").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="report is not a directory"):
        write_report(str(run), tmp_path)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_the_command(cli, tmp_path):
    run = write_run(tmp_path / "logs" / "runs" / "one", [], bpc=2.0)
    done = cli("report.py", "runs=latest")
    assert done.returncode == 0 and done.stdout.strip().endswith(PAGE), done.stderr
    text = (run / PAGE).read_text()
    assert "2.0000 bits per character on play.txt" in text and "All options of the run" in text
    refused = cli("report.py", f"runs={tmp_path}/nothing*")
    assert refused.returncode == 2 and refused.stderr.startswith("error: no run at runs=")
    assert len(refused.stderr.splitlines()) == 1


def test_the_model_of_the_best_run(sweep):
    write_checkpoint(sweep / "7")
    text = write_report(str(sweep), sweep).read_text()
    elements = Elements(text)
    assert set(json.loads(elements.scripts[0])["specs"]) >= {"loss_by_position", "loss_by_token"}
    files = {path.name for path in (sweep / "report").iterdir()}
    assert {f"{n}.{k}" for n in ("attention", "loss_by_token") for k in ("png", "svg")} <= files
    labels = [a.get("aria-label", "") for a in elements.attributes("svg")]
    assert [label[:16] for label in labels if label] == ["Layer 1, head 1:", "Layer 1, head 2:"]
    assert len(elements.attributes("image")) == len(elements.attributes("use")) == 2
    assert "The model of step 7. Losses are on the first 102 characters of the validation split." in text
    assert "<code>First␣C</code>" in text and "left out" not in text


@pytest.mark.parametrize("damage", ["no checkpoint", "damaged", "no text"])
def test_what_is_missing_of_the_model_is_one_line(tmp_path, capsys, damage):
    run = write_run(tmp_path / "one", [], bpc=2.0)
    if damage != "no checkpoint":
        path = write_checkpoint(run)
        (path if damage == "damaged" else tmp_path / "play.txt").write_bytes(b"no")
    notes = Elements(text := write_report(str(run), tmp_path).read_text()).attributes("ul")
    said = {"no checkpoint": "has no checkpoint yet", "damaged": "is damaged", "no text": "has changed since"}[damage]
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line and said in text and len(notes) == 2
    assert ("What the model expects next" in text) == (damage == "no text") and "loss_by_token" not in text


def test_a_single_run_that_cannot_be_read_is_an_error_and_no_page(tmp_path):
    run = write_run(tmp_path / "one", [], bpc=2.0)
    (run / "metrics.csv").write_text("damaged\n")
    (run / "summary.json").unlink()
    with pytest.raises(ValueError, match=r"left no summary|metrics\.csv is damaged"):
        write_report(str(run), tmp_path)
    assert not (run / PAGE).exists()
