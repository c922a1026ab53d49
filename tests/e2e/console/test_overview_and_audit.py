"""The frame: overview, audit, palette, appearance, language, signing out."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.e2e.browser import sign_in
from tests.e2e.console.panes import Pane, open_shell
from tests.e2e.console.world import BOX, CRATE, Visitor, World

Visit = Callable[..., Visitor]


def test_the_overview_moves_by_itself(page: Page, visit: Visit) -> None:
    figure = page.get_by_role("link", name=re.compile("^Live sessions"))
    online = page.get_by_role("link", name=re.compile("^Machines online"))
    expect(online).to_have_text(re.compile(r"2\s*of 2"))
    expect(figure).to_have_text(re.compile(r"sessions\s*\d+"))
    shell = open_shell(visit().page(), BOX)
    session = page.locator(f"[data-session-id='{shell.session_id}']")
    expect(session).to_be_visible()
    expect(page.get_by_role("button", name="session.opened").first).to_be_visible()
    shell.end()
    expect(session).to_have_count(0)
    online.click()
    expect(page.get_by_role("heading", name="Machines")).to_be_visible()


def test_the_audit_trail_is_filtered_opened_and_exported(page: Page, world: World) -> None:
    name = world.person("auditor")
    world.gateway.login(name)
    with world.gateway.client() as stranger:
        refused = stranger.post("/api/v1/auth/login", json={"username": name, "password": "wrong"})
        assert refused.status_code == 401
    page.get_by_role("link", name="Audit").first.click()
    events = page.get_by_role("table", name="Events")
    expect(events.get_by_role("row").nth(3)).to_be_visible()
    page.get_by_label("Filter by words").fill(name)
    expect(events).not_to_contain_text("agent.approved")
    expect(events.get_by_role("row").filter(has_text=name).first).to_be_visible()
    page.get_by_role("combobox", name="Outcome").click()
    page.get_by_role("option", name="denied").click()
    expect(events.get_by_text("ok", exact=True)).to_have_count(0)
    expect(events.get_by_text("denied", exact=True).first).to_be_visible()
    row = events.get_by_role("row").nth(1)
    row.get_by_role("button").click()
    expect(events.locator("pre")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="Export CSV").click()
    rows = list(csv.DictReader(download.value.path().read_text().splitlines()))
    assert rows
    assert {one["outcome"] for one in rows} == {"denied"}
    page.get_by_label("Filter by words").fill("nobody-did-this")
    expect(page.get_by_text("No events")).to_be_visible()


def test_the_palette_reaches_machines_terminals_and_pages(page: Page) -> None:
    palette = page.get_by_role("textbox", name="Go to a machine or page…")
    page.keyboard.press("Control+k")
    expect(palette).to_be_focused()
    page.keyboard.type("crate")
    page.get_by_role("option", name=re.compile("^crate")).or_(
        page.locator("button.mantine-Spotlight-action").filter(has_text=CRATE)
    ).filter(has_not_text="Terminal").first.click()
    expect(page.get_by_role("heading", name=CRATE)).to_be_visible()
    page.keyboard.press("Control+k")
    expect(palette).to_be_focused()
    page.keyboard.type("env=prod")
    page.keyboard.press("Enter")  # the first: a terminal there
    shell = Pane(page, CRATE).ready()
    shell.screen.click()
    page.keyboard.press("Control+Shift+K")  # from inside a terminal, whose Ctrl-K is the shell's
    expect(palette).to_be_focused()
    page.keyboard.type("audit")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Audit")).to_be_visible()
    page.get_by_role("button", name="Search").first.click()
    expect(palette).to_be_focused()
    page.keyboard.type("no such thing")
    expect(page.get_by_text("Nothing found")).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Terminal").first.click()
    shell.end()


def test_light_and_dark_are_chosen_and_kept(page: Page) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    root = page.locator("html")
    grounds = {}
    for name, scheme in (("Dark", "dark"), ("Light", "light")):
        page.get_by_role("button", name="Account").click()
        page.get_by_role("menuitem", name=name).click()
        expect(root).to_have_attribute("data-mantine-color-scheme", scheme)
        page.reload()
        expect(root).to_have_attribute("data-mantine-color-scheme", scheme)
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        grounds[scheme] = page.evaluate(ground)
    assert grounds["dark"] != grounds["light"]


def test_chinese_is_chosen_kept_and_left(page: Page) -> None:
    page.get_by_role("button", name="Account").click()
    page.get_by_role("menuitem", name="中文").click()
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    expect(page.get_by_role("heading", name="Overview")).to_have_count(0)
    page.reload()
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    for path in ("/", "/machines", "/sessions", "/recordings", "/audit", "/settings"):
        page.locator(f"nav a[href='{path}']").click()
        expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("[\u4e00-\u9fff]"))
    page.locator(".account button").click()
    page.get_by_role("menuitem", name="English").click()
    expect(page.get_by_role("heading", name="Settings")).to_be_visible()


def test_a_chinese_browser_starts_in_chinese(visit: Visit) -> None:
    page = visit(None, locale="zh-CN").page("/")
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    expect(page.get_by_role("button", name=re.compile("登录"))).to_be_visible()


def test_signing_out_ends_every_tab(visit: Visit, world: World) -> None:
    visitor = visit(None)
    page = visitor.page("/")
    sign_in(page, world.gateway)
    other = visitor.page("/machines")
    expect(other.get_by_role("heading", name="Machines")).to_be_visible()
    page.get_by_role("button", name="Account").click()
    page.get_by_role("menuitem", name="Sign out").click()
    for one in (page, other):
        expect(one.get_by_role("button", name="Sign in")).to_be_visible()
    other.goto(f"{world.gateway.url}/audit")
    expect(other.get_by_role("button", name="Sign in")).to_be_visible()
    sign_in_again = other.get_by_label("User name")
    sign_in_again.fill("root-admin")
    other.get_by_label("Password", exact=True).fill("correct horse battery")
    other.keyboard.press("Enter")
    expect(other.get_by_role("heading", name="Audit")).to_be_visible()  # where they were going


def test_an_unknown_address_says_so(page: Page, world: World) -> None:
    page.goto(f"{world.gateway.url}/no/such/page")
    expect(page.get_by_text("There is nothing here")).to_be_visible()
    page.get_by_role("link", name="To the overview").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
