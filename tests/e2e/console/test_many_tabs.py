"""Seven tabs: a browser has six connections to a gateway, and live news must not use them up."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.console.world import BOX, Visitor, World
from tests.e2e.programs import unique

Visit = Callable[..., Visitor]
TABS = 7
_PUT_AWAY = """() => {
    for (const [name, value] of [['hidden', true], ['visibilityState', 'hidden']])
        Object.defineProperty(document, name, {configurable: true, get: () => value});
    document.dispatchEvent(new Event('visibilitychange'));
}"""
_LOOK_AGAIN = """() => {
    delete document.hidden;
    delete document.visibilityState;
    document.dispatchEvent(new Event('visibilitychange'));
}"""


@pytest.fixture(scope="module")
def box(world: World) -> str:
    """The id of ``box``, whatever it is called at the moment."""
    return str(world.machine(BOX)["id"])


def rename(world: World, box: str, title: str) -> None:
    answer = world.admin.patch(f"/api/v1/assets/{box}", json={"name": title})
    assert answer.status_code == 200, answer.text


def named(page: Page, title: str) -> None:
    """The page shows the machine's new name without being reloaded."""
    expect(page.get_by_role("link", name=title, exact=True)).to_be_visible(timeout=10_000)


def test_seven_tabs_get_their_news_and_still_load(visit: Visit, world: World, box: str) -> None:
    visitor = visit()
    tabs = [visitor.page("/machines") for _ in range(TABS)]
    for tab in tabs:  # the seventh, too: its scripts and its questions find a connection
        named(tab, BOX)
    news = unique("news")
    rename(world, box, news)
    try:
        for tab in tabs:
            named(tab, news)
        tabs[0].close()  # whoever came first is gone; the others hear on
        rename(world, box, BOX)
        for tab in tabs[1:]:
            named(tab, BOX)
            tab.get_by_role("navigation").get_by_role("link", name="Sessions").click()
            expect(tab.get_by_role("heading", level=1, name="Sessions")).to_be_visible()
            expect(tab.get_by_role("status").filter(has_text="No live updates")).to_have_count(0)
    finally:
        rename(world, box, BOX)


def test_seven_machine_pages_draw_their_charts_where_somebody_looks(
    visit: Visit, world: World, box: str
) -> None:
    visitor = visit()
    path = f"/machines/{box}"
    tabs: list[Page] = []
    for _ in range(TABS):
        for tab in tabs[-1:]:
            tab.evaluate(_PUT_AWAY)
        tabs.append(visitor.page(path))
        expect(tabs[-1].get_by_role("figure").first).to_be_visible()
    # Back at the first one: its charts go on.
    with tabs[0].expect_request("**/metrics/live"):
        tabs[0].evaluate(_LOOK_AGAIN)


def test_without_shared_workers_a_tab_listens_while_it_is_looked_at(
    visit: Visit, world: World, box: str
) -> None:
    visitor = visit()
    visitor.context.add_init_script("delete window.SharedWorker")
    page = visitor.page("/machines")
    named(page, BOX)
    news = unique("alone")
    rename(world, box, news)
    try:
        named(page, news)
        page.evaluate(_PUT_AWAY)
        rename(world, box, BOX)
        page.wait_for_timeout(2000)
        expect(page.get_by_role("link", name=news, exact=True)).to_be_visible()
        page.evaluate(_LOOK_AGAIN)
        named(page, BOX)
    finally:
        rename(world, box, BOX)
