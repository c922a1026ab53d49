"""The console in Chromium, against one gateway and two machines per module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.browser import chromium
from tests.e2e.console.world import BOX, CRATE, Visitor, World
from tests.e2e.programs import ADMIN

Visit = Callable[..., Visitor]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """What the pages showed and the programs printed, with a test that failed."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    arguments: dict[str, Any] = getattr(item, "funcargs", {})
    if not report.failed or report.when != "call" or "world" not in arguments:
        return
    world: World = arguments["world"]
    for log in sorted(world.directory.rglob("*.log")):
        report.sections.append((f"log {log.name}", log.read_text(errors="replace")[-3000:]))
    for page in arguments.get("_pages", list)():
        picture = world.directory / f"{item.name}.png".replace("/", "_")
        page.screenshot(path=picture)
        report.sections.append(("page", f"{page.url}\n{picture}\n{page.inner_text('body')[:2000]}"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/e2e/console/" in str(item.path):
            item.add_marker(pytest.mark.needs("chromium"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as made:
        yield made


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A gateway with ``box`` (env=dev, role=build) and ``crate`` (env=prod) online."""
    made = World(tmp_path_factory.mktemp("console"))
    try:
        yield made.start(BOX, CRATE)
    finally:
        made.close()


@pytest.fixture
def visitors() -> Iterator[list[Visitor]]:
    made: list[Visitor] = []
    yield made
    for visitor in made:
        visitor.close()
    problems = [problem for visitor in made for problem in visitor.problems]
    assert not problems, problems


@pytest.fixture
def _pages(visitors: list[Visitor]) -> Callable[[], list[Page]]:
    return lambda: [page for visitor in visitors for page in visitor.context.pages]


@pytest.fixture
def visit(
    world: World, browser: Browser, visitors: list[Visitor], _pages: Callable[[], list[Page]]
) -> Visit:
    """``visit(user, **context_options)`` gives a :class:`Visitor`; an admin by default."""

    def made(user: str | None = ADMIN, **options: Any) -> Visitor:
        visitors.append(Visitor(world, browser, user, **options))
        return visitors[-1]

    return made


@pytest.fixture
def page(visit: Visit) -> Page:
    """The overview, signed in as the admin."""
    page = visit().page()
    expect(page.get_by_role("navigation")).to_be_visible(timeout=20_000)
    return page
