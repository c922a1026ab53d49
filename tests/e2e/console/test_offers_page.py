"""Offers: a port lent with a one-time code, used with the command that the page shows, ended."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.e2e.console.world import BOX, CRATE, Visitor, World
from tests.e2e.programs import killing
from tests.e2e.test_exec import token_of
from tests.e2e.test_guests import Guest
from tests.e2e.test_offers import Command
from tests.e2e.tunnelled import connect, echo, ended, tcp_server

Visit = Callable[..., Visitor]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """As everywhere, but guests may."""
    made = World(tmp_path_factory.mktemp("offers"))
    made.gateway.env["UNDERPASS_GUESTS"] = "all"
    try:
        yield made.start(BOX, CRATE)
    finally:
        made.close()


@pytest.fixture
def target() -> Iterator[int]:
    with tcp_server(echo) as port:
        yield port


def works(port: int) -> None:
    with connect(port) as sock:
        sock.sendall(b"hello")
        assert sock.recv(5) == b"hello"


def lend(page: Page, port: int, machine: str = BOX) -> tuple[Locator, str]:
    """Make a code in the dialog; the dialog and the code."""
    page.get_by_role("button", name="Lend a port").first.click()
    dialog = page.get_by_role("dialog", name="Lend a port")
    create = dialog.get_by_role("button", name="Create code")
    create.click()
    expect(dialog.get_by_text("This is needed.")).to_have_count(2)
    dialog.get_by_role("combobox", name="Machine").click()
    page.get_by_role("option", name=machine, exact=True).click()
    dialog.get_by_label("Target port").fill(str(port))
    expect(dialog.get_by_text("This is needed.")).to_have_count(0)
    create.click()
    code = dialog.get_by_test_id("offer-code")
    expect(code).to_have_text(re.compile(r"^[0-9A-Z]{4}-[0-9A-Z]{4}-[0-9A-Z]{4}$"))
    return dialog, code.inner_text()


def row(page: Page, text: str) -> Locator:
    return page.get_by_test_id("offer").filter(has_text=text)


def test_a_port_is_lent_used_and_withdrawn(
    visit: Visit, world: World, target: int, tmp_path: Path
) -> None:
    ann, bob = world.person("user", BOX), world.person("user")
    page = visit(ann).page("/offers")
    expect(page.get_by_text("Nothing is lent")).to_be_visible()
    expect(page.get_by_text("underpass offer tcp 3306")).to_be_visible()
    dialog, code = lend(page, target)
    command = dialog.locator("code").first
    expect(command).to_have_text(f"underpass accept {code}")
    expect(dialog.get_by_role("button", name="Copy the code")).to_be_visible()
    expect(dialog.get_by_role("status")).to_contain_text("works once")
    accept = Command("accept", tmp_path / "bob")
    with killing(accept):
        words = command.inner_text().split()[1:]
        accept.start(world.gateway, token_of(world.gateway.login(bob)), *words, "--listen", "0")
        port = int(accept.said(r"^listening on 127\.0\.0\.1:(\d+)$"))
        works(port)
        expect(dialog.get_by_role("status")).to_contain_text(f"Used by {bob}", timeout=10_000)
        dialog.get_by_role("button", name="Done").click()
        line = row(page, str(target))
        expect(line.get_by_test_id("offer-status")).to_have_text("In use")
        expect(line).to_contain_text(bob)
        expect(line.get_by_test_id("guest")).to_have_count(0)
        assert code not in page.content()

        theirs = visit(bob).page("/offers")
        expect(row(theirs, str(target)).get_by_role("button", name="Give back")).to_be_visible(
            timeout=20_000
        )
        with connect(port) as client:
            client.sendall(b"hello")
            assert client.recv(5) == b"hello"
            line.get_by_role("button", name="Withdraw").click()
            sure = page.get_by_role("dialog", name=re.compile("^End access to"))
            expect(sure).to_contain_text("cut within seconds")
            sure.get_by_role("button", name="Withdraw").click()
            expect(line).to_have_count(0)
            assert ended(client)
    expect(row(theirs, str(target))).to_have_count(0, timeout=10_000)
    page.get_by_text("All, 30 days back").click()
    expect(line.get_by_test_id("offer-status")).to_have_text("Withdrawn")
    expect(line.get_by_role("button", name="Withdraw")).to_have_count(0)


def test_guests_are_shown_as_such(page: Page, world: World, target: int, tmp_path: Path) -> None:
    page.get_by_role("navigation").get_by_role("link", name="Offers").click()
    guests = page.get_by_role("region", name="People without an account")
    for mode in ("off", "accept", "all"):
        expect(guests.get_by_text(mode, exact=True)).to_be_visible()
    dialog, _ = lend(page, target)
    command = dialog.locator("code").nth(1).inner_text().split()
    dialog.get_by_role("button", name="Done").click()
    borrower, lender = Guest("accept", tmp_path / "eve"), Guest("offer", tmp_path / "zoe")
    with killing(borrower, lender), tcp_server(echo) as other:
        borrower.run(*command[1:], "--listen", "0")
        works(int(borrower.said(r"^listening on 127\.0\.0\.1:(\d+)$")))
        line = row(page, str(target))
        expect(line.get_by_test_id("offer-status")).to_have_text("In use", timeout=10_000)
        expect(line.get_by_test_id("guest").locator("visible=true")).to_have_count(1)
        lender.run("offer", "--server", world.gateway.url, "tcp", f"127.0.0.1:{other}")
        theirs = row(page, str(other))
        expect(theirs).to_contain_text("A guest's own machine", timeout=10_000)
        expect(theirs.get_by_test_id("guest").locator("visible=true")).to_have_count(1)
        # What they did is theirs in the audit trail as well.
        page.get_by_role("navigation").get_by_role("link", name="Audit").click()
        event = page.get_by_role("row").filter(has_text="offer.accepted").first
        expect(event.get_by_test_id("guest")).to_be_visible()
        page.get_by_role("navigation").get_by_role("link", name="Offers").click()
        theirs.get_by_role("button", name="Withdraw").click()
        page.get_by_role("dialog").get_by_role("button", name="Withdraw").click()
        expect(theirs).to_have_count(0)


def test_what_cannot_be_lent_says_why(visit: Visit, world: World) -> None:
    auditor = visit(world.person("auditor")).page("/offers")
    auditor.get_by_role("button", name="Lend a port").first.click()
    dialog = auditor.get_by_role("dialog", name="Lend a port")
    dialog.get_by_role("combobox", name="Machine").click()
    auditor.get_by_role("option", name=CRATE, exact=True).click()
    dialog.get_by_text("Unix socket", exact=True).click()
    dialog.get_by_label("Path of the socket").fill("not/absolute")
    dialog.get_by_role("button", name="Create code").click()
    path = dialog.get_by_label("Path of the socket")
    expect(path).to_have_attribute("aria-invalid", "true")
    path.fill("/run/app.sock")
    dialog.get_by_role("button", name="Create code").click()
    expect(dialog.get_by_role("alert")).to_be_visible()
    expect(dialog.get_by_test_id("offer-code")).to_have_count(0)
