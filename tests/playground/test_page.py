"""The page of the playground in a browser."""

from pathlib import Path

import pytest
import torch
from playwright.sync_api import expect
from tests.inference.checkpoints import SIZES
from tests.playground.conftest import running
from tests.playground.test_model_views import PARTS, loaded_model

from minigpt.data.tokenizer import BPETokenizer
from minigpt.inference.load import LoadedModel
from minigpt.model.gpt import GPT
from minigpt.model.objectives import NextToken

WIDTHS = (390, 1366)  # pixels: a phone, a laptop
SERIOUS = ("serious", "critical")


@pytest.fixture
def open_page(browser):
    """Opens the page of a server; afterwards, it must have asked for nothing else and reported no error."""
    contexts, said, requests, ports = [], [], [], []

    def open_in(client, scheme="light"):
        context = browser.new_context(color_scheme=scheme, viewport={"width": WIDTHS[1], "height": 900})
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        contexts.append(context)
        ports.append(client.port)
        page.goto(f"http://127.0.0.1:{client.port}/")
        expect(page.locator("#token-list button")).not_to_have_count(0)
        return page

    yield open_in
    for context in contexts:
        context.close()
    said = [line for line in said if "400 (Bad Request)" not in line]  # Chromium's own line on a text that is refused
    assert said == []
    assert [url for url in requests if not url.startswith(f"http://127.0.0.1:{ports[0]}/")] == []


def percents(page, selector):
    """The numbers that bars show."""
    return [
        float(text.removesuffix(" %").lstrip("<")) for text in page.locator(f"{selector} .amount").all_inner_texts()
    ]


def test_what_is_typed_is_followed_through_the_model(open_page, client):
    page = open_page(client)
    page.fill("#prompt", "to be:\n")
    expect(page.locator("#token-list b")).to_have_text(["t", "o", "␣", "b", "e", ":", "⏎"])
    expect(page.locator("#lens-table tbody tr")).to_have_count(2)  # the embedding and one layer
    expect(page.locator("#heads button")).to_have_count(2)
    page.locator("#token-list button").nth(3).click()
    expect(page.locator("#embedding-text")).to_contain_text("“b” has the id")
    expect(page.locator("#lens-chosen")).to_have_text("After “b”")
    expect(page.locator("#lines-title")).to_contain_text("From “b”")
    page.fill("#prompt", "<b>")
    expect(page.locator("#problem")).to_contain_text("characters outside the vocabulary: '<'")
    page.fill("#prompt", "")
    expect(page.locator("#problem")).to_have_text("type at least one character")
    page.fill("#prompt", "to")
    expect(page.locator("#problem")).to_have_text("")


def test_a_head_is_chosen_and_its_weights_are_read_by_mouse_and_keys(open_page, client):
    page = open_page(client)
    page.fill("#prompt", "that")
    expect(page.locator("#token-list b")).to_have_text(list("that"))
    page.get_by_role("button", name="Layer 1, head 2").click()
    expect(page.locator("#map-title")).to_have_text("Layer 1, head 2")
    box = page.locator("#map").bounding_box()
    page.locator("#map").hover(position={"x": box["width"] * 0.1, "y": box["height"] * 0.1})
    expect(page.locator("#map-value")).to_have_text("“t” (1) takes 100 % from “t” (1).")
    page.locator("#map").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#map-value")).to_have_text("“t” (1) comes before “h” (2) and cannot see it.")


def test_sliders_change_the_distribution(open_page, client):
    page = open_page(client)
    flat = page.locator("#candidates .amount").first.inner_text()
    page.locator("#temperature").fill("0")
    expect(page.locator("#kept")).to_contain_text("1 of")
    assert percents(page, "#candidates")[0] == 100 and flat != "100 %"
    page.locator("#temperature").fill("1")
    page.locator("#top-k").fill("3")
    expect(page.locator("#kept")).to_contain_text("3 of")
    shares = percents(page, "#candidates")
    assert sum(shares[:3]) == pytest.approx(100, abs=1.5) and not any(shares[3:])
    page.locator("#top-p").focus()
    page.keyboard.press("Home")
    expect(page.locator("#kept")).to_contain_text("1 of")


def test_text_streams_and_goes_on_from_an_alternative(open_page, client):
    page = open_page(client)
    page.fill("#prompt", "to")
    page.fill("#length", "12")
    page.click("#write-button")
    expect(page.locator("#write-status")).to_have_text("12 written")
    before = page.locator(".step").all_text_contents()
    page.locator(".step").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#alternatives-title")).to_contain_text("step 3")
    page.fill("#prompt", "not")  # typed meanwhile: the text goes on from the prompt that it began with
    other = page.locator("#alternatives button[aria-pressed=false]").first
    text = other.evaluate("button => button.firstChild.data")
    other.click()
    expect(page.locator("#write-status")).to_have_text("15 written")
    after = page.locator(".step").all_text_contents()
    signs = {"␣": " ", "⏎": "\n"}
    assert after[:2] == before[:2] and after[2] == signs.get(text, text) != before[2] and len(after) == 15
    expect(page.locator("#written-prompt")).to_have_text("to")


def test_two_checkpoints_are_side_by_side(open_page, client):
    page = open_page(client)
    assert page.locator("#early-checkpoint").input_value() == "step_3.ckpt"
    assert page.locator("#late-checkpoint").input_value() == "step_7.ckpt"
    expect(page.locator("#late .bars li")).to_have_count(8)
    assert percents(page, "#early") != percents(page, "#late")
    assert percents(page, "#late") == percents(page, "#candidates")[:8]
    page.select_option("#late-checkpoint", "step_3.ckpt")
    expect(page.locator("#late .bars")).to_have_text(page.locator("#early .bars").inner_text().replace("\n", ""))
    page.click("#write-both button")
    expect(page.locator("#both-status")).to_contain_text("written")
    assert page.locator("#early .written").inner_text() == page.locator("#late .written").inner_text() != "To be"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible_and_fits_a_phone(open_page, client, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(client, scheme)
    page.fill("#length", "4")
    page.click("#write-button")
    expect(page.locator("#write-status")).to_have_text("4 written")
    page.locator(".step").first.click()
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = Axe().run(page).response["violations"]
        assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in SERIOUS] == []


class OneModel:
    """A run with a single checkpoint, already loaded."""

    def __init__(self, loaded):
        self.path, self.run_name, self.first = loaded.path, "run", loaded.path.name
        self.load = lambda name: loaded
        self.files = lambda: {self.first: "step 0"}


@pytest.mark.parametrize("name", ["bigram", "ngram", "encoder"])
def test_a_model_without_a_part_has_a_line_in_its_place(open_page, name):
    loaded = loaded_model(name)
    with running(OneModel(loaded)) as client:
        page = open_page(client)
        page.fill("#prompt", "abc")
        expect(page.locator("#token-list b")).to_have_text(["a", "b", "c"])
        lines = page.locator(".missing:visible")
        expect(lines).to_have_count({"bigram": 2, "ngram": 3, "encoder": 2}[name])
        expect(page.locator("#compare-note")).to_contain_text("There is one checkpoint")
        assert page.locator("#candidates").is_visible() == (name != "encoder")
        assert page.locator("#map").is_visible() == (name == "encoder")
        expect(page.locator("#problem")).to_have_text("")


def test_long_tokens_fit_a_phone(open_page):
    tokenizer = BPETokenizer(vocab_size=263).train("kingdom ", iter(["kingdom kingdom " * 50]))
    assert max(map(len, tokenizer.tokens)) >= 8
    torch.manual_seed(0)
    model = GPT(vocab_size=tokenizer.vocab_size, **SIZES, **PARTS).eval()
    loaded = LoadedModel(Path("x.ckpt"), model, NextToken(), tokenizer, 0, {"text": {"block_size": 8}})
    with running(OneModel(loaded)) as client:
        page = open_page(client)
        page.set_viewport_size({"width": WIDTHS[0], "height": 900})
        page.fill("#prompt", "kingdom kingdom kingdom kingdom")
        expect(page.locator("#token-list button")).to_have_count(
            len(tokenizer.encode("kingdom kingdom kingdom kingdom"))
        )
        expect(page.locator("#tokens-note")).to_contain_text("Choose a token")
        assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[0]
