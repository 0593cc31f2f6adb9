"""The page of a report in a browser: Chromium, where the system has one; none is downloaded."""

import itertools

import pytest
from tests.report.conftest import write_checkpoint, write_run

from minigpt.report.page import write_report

WIDTHS = (360, 1280, 1920)  # pixels: a phone, a laptop, a desktop


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The pages of a sweep of 3 x 2 options and 3 seeds, and of one run."""
    folder = tmp_path_factory.mktemp("runs")
    choices = itertools.product(("adam", "adamw", "muon"), (32, 64), (1, 2, 3))
    for job, (optimizer, dim, seed) in enumerate(choices):
        options = [f"optimizer={optimizer}", f"model.dim={dim}"]
        write_run(folder / "sweep" / str(job), options, bpc=3 - job / 20, seed=seed)
    single = write_run(folder / "single", ["model=nano", "data=synthetic"], bpc=2.0)
    write_checkpoint(folder / "sweep" / "17")
    write_checkpoint(single)
    return {name: write_report(str(folder / name), folder) for name in ("sweep", "single")}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["sweep", "single"])
def test_a_page_asks_for_nothing_says_nothing_and_is_accessible(browser, pages, name, scheme):
    from axe_playwright_python.sync_playwright import Axe

    context = browser.new_context(color_scheme=scheme, viewport={"width": WIDTHS[1], "height": 900})
    page = context.new_page()
    requests, said = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(pages[name].as_uri())
    charts = page.locator(".chart").count()
    page.wait_for_function("n => document.querySelectorAll('.chart svg').length == n", arg=charts)
    assert charts == {"sweep": 5, "single": 4}[name]
    assert [url for url in requests if not url.startswith("data:")] == [pages[name].as_uri()] and said == []
    page.locator("details").evaluate_all("all => all.forEach(details => details.open = true)")
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_function("w => document.documentElement.scrollWidth <= w", arg=width)  # charts follow in a moment
    found = Axe().run(page).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")] == []
    context.close()
