"""Every journey through the console, clicked in a real browser."""

import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.app.service import Service
from tests.app.tiny import form, pngs, write_bundle

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((found for name in NAMES if (found := shutil.which(name))), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the path"),
    pytest.mark.timeout(600),
]
KEY = "an admin's key"
PATIENCE_MS = 60_000  # a busy machine


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two calibrations, and traffic of which much is rejected at so large a budget."""
    folder = tmp_path_factory.mktemp("console")
    bundle = write_bundle(folder / "bundle", labels=("dot", "<b>line</b>", "ring", "cross"))
    settings = {"bundle": bundle, "data_dir": folder / "data", "device": "cpu", "admin_key": KEY}
    with Service(**settings, detectors=["profile", "spc"], alpha=0.6, decision_flush_ms=50) as running:
        running.http.headers["X-API-Key"] = KEY
        for seed in (1, 2):
            assert running.http.post("/calibrate", files=form(pngs(60, seed=seed))).status_code == 201
        assert running.http.post("/classify", files=form(pngs(60, seed=3))).status_code == 200
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=[1280, 390], ids=["laptop", "phone"])
def page(request: pytest.FixtureRequest, browser: Any, service: Service) -> Iterator[Any]:
    """Signed in; at the end nothing was refused by the policy and no script failed."""
    context = browser.new_context(viewport={"width": request.param, "height": 800}, base_url=service.url)
    context.set_default_timeout(PATIENCE_MS)
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto("/console")
    page.get_by_label("Admin key").fill(KEY)
    page.get_by_label("Your name").fill("Ada")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/console")
    yield page
    assert said == []
    context.close()


def fits(page: Any) -> None:
    """Nothing has to be scrolled sideways but what scrolls by itself."""
    page.wait_for_load_state("load")  # between two pages there is no document
    page.wait_for_function(
        "document.documentElement?.scrollWidth <= document.documentElement?.clientWidth", timeout=10_000
    )


def test_every_journey(page: Any) -> None:
    nav = page.get_by_role("navigation", name="Console")

    page.get_by_role("heading", name="Overview").wait_for()  # live traffic, by its script too
    assert page.locator(".tile-figure strong").first.inner_text() == "60"
    with page.expect_response(re.compile("/console/live")) as answer:
        pass
    assert answer.value.status == 200
    fits(page)

    nav.get_by_role("link", name="Detectors").click()
    page.get_by_role("img", name="Scores of profile").wait_for()
    fits(page)

    nav.get_by_role("link", name="Calibrations").click()  # compare, then roll back
    page.get_by_role("button", name="Compare A with B").click()
    page.get_by_role("heading", name="From A to B").wait_for()
    fits(page)
    page.get_by_role("link", name="Activate…").click()
    page.get_by_role("button", name="Activate").click()
    page.get_by_text("is enforced from the next batch on").wait_for()
    assert page.get_by_text("activated by Ada").count() >= 1
    fits(page)
    page.locator("tr.current th a").click()  # its report, with its plots
    page.get_by_role("img", name="Benign scores of profile").wait_for()
    fits(page)

    nav.get_by_role("link", name="Quarantine").click()  # filter, tick, mark
    page.get_by_label("Predicted label").select_option(index=0)
    page.get_by_label("Review").select_option("open")
    page.get_by_role("button", name="Filter").click()
    before = page.locator(".tile").count()
    assert before > 4
    assert page.locator(".tile img").first.evaluate("image => image.complete && image.naturalWidth") == 8
    fits(page)
    page.locator(".tile input").nth(0).check()
    page.locator(".tile input").nth(1).check()
    page.get_by_role("button", name="Trigger").click()
    page.get_by_text("2 images marked.").wait_for()
    assert page.locator(".tile").count() == before - 2

    page.locator(".tile a").first.click()  # one image, with what the probes show
    page.get_by_role("heading", name="What profile asks").wait_for()
    assert page.get_by_role("img", name="The image under blur").count() == 1
    fits(page)
    page.get_by_role("button", name="False alarm").click()
    page.get_by_text("1 image marked.").wait_for()
    assert page.get_by_text("false alarm, by Ada").count() >= 1

    nav.get_by_role("link", name="Quarantine").click()  # all at once, after a question
    page.get_by_label("all on this page").check()
    assert page.locator(".tile input:checked").count() == page.locator(".tile").count()
    page.get_by_label("that the filter takes").check()
    page.get_by_role("button", name="False alarm").click()
    page.get_by_role("button", name=re.compile("^Mark .* images$")).click()
    page.get_by_text("No image in quarantine is like that.").wait_for()
    page.goto("/console/quarantine")  # for the next one who looks
    page.get_by_label("that the filter takes").check()
    page.get_by_role("button", name="Take marks back").click()
    page.get_by_role("button", name=re.compile("^Mark .* images$")).click()

    nav.get_by_role("link", name="Incidents").click()
    page.locator(".incidents h2 a").first.click()
    average = page.get_by_role("img", name="Average of the images of this incident")
    assert average.evaluate("image => image.complete && image.naturalWidth") == 8
    fits(page)

    nav.get_by_role("link", name="What if").click()
    page.get_by_label("Budget α in %").fill("99")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**alpha=99*")
    assert page.get_by_label("Budget α in %").input_value() == "99"
    fits(page)

    for now, button in (("enforcing", "Only monitor"), ("monitoring", "Enforce")):  # with a question each
        page.get_by_role("link", name=now).click()
        fits(page)
        page.get_by_role("button", name=button).click()
        page.get_by_role("heading", name="Overview").wait_for()

    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("heading", name="Sign in").wait_for()
    page.goto("/console/quarantine")
    page.get_by_role("heading", name="Sign in").wait_for()


def test_it_can_be_used_by_keyboard(page: Any) -> None:
    page.goto("/console/quarantine")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.locator(".tile input").first.focus()
    page.keyboard.press("Space")
    assert page.locator(".tile input").first.is_checked()
    page.locator(".tile a").first.focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="What profile asks").wait_for()


def test_without_javascript(browser: Any, service: Service) -> None:
    """Everything but the fresh figures and the box that ticks a page."""
    context = browser.new_context(java_script_enabled=False, base_url=service.url)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto("/console/incidents")
    page.get_by_label("Admin key").fill(KEY)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/console/incidents")
    page.goto("/console/quarantine")
    assert not page.get_by_label("all on this page").is_visible()
    page.locator(".tile input").first.check()
    page.get_by_role("button", name="Take marks back").click()
    page.get_by_text("1 image marked.").wait_for()
    context.close()


def test_html_in_names_runs_nothing(page: Any) -> None:
    """The class is called <b>line</b>: that is what one reads."""
    page.goto("/console/quarantine")
    assert page.locator("option", has_text="<b>line</b>").count() == 1
    assert page.locator("b").count() == 0
