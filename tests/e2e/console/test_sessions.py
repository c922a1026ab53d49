"""Sessions: watched by an auditor, joined by an admin, ended with a word to their owner."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Locator, Page, expect

from tests.e2e.console.panes import Pane, open_shell
from tests.e2e.console.world import BOX, CRATE, Visitor, World
from tests.e2e.programs import ADMIN

Visit = Callable[..., Visitor]


def session_row(page: Page, session: str) -> Locator:
    return page.get_by_test_id("session").and_(page.locator(f"[data-session-id='{session}']"))


def test_an_auditor_watches_without_touching(visit: Visit, world: World) -> None:
    shell = open_shell(visit().page(), BOX)
    auditor = world.person("auditor")
    theirs = visit(auditor).page("/sessions")
    row = session_row(theirs, shell.session_id)
    expect(row).to_contain_text(ADMIN)
    for button in ("Join", "End", "Return"):
        expect(row.get_by_role("button", name=button)).to_have_count(0)
    row.get_by_role("button", name="Watch").click()
    watched = Pane(theirs, BOX)
    expect(watched.screen).to_have_attribute("data-phase", "attached")
    expect(watched.section).to_contain_text("Watching")
    shell.line("clear; echo seen-by-$((40+2))")
    watched.wait(r"^seen-by-42$")
    expect(shell.section.locator(".mantine-Badge-root")).to_have_text("1")  # the owner knows
    watched.line("echo touched-$((6*7))")
    shell.line("echo later-$((6*7))")
    watched.wait(r"^later-42$")
    assert "touched" not in shell.text()
    shell.line("exit 5")
    expect(watched.section.get_by_test_id("terminal-exit")).to_have_attribute("data-exit-code", "5")


def test_an_admin_joins_and_types(visit: Visit, world: World) -> None:
    user = world.person("user", CRATE)
    shell = open_shell(visit(user).page(), CRATE)
    page = visit().page("/sessions")
    row = session_row(page, shell.session_id)
    row.get_by_role("button", name="Join").click()
    joined = Pane(page, CRATE)
    expect(joined.section).to_contain_text("Joined")
    joined.line("echo both-$((6*7))")
    joined.wait(r"^both-42$")
    shell.wait(r"^both-42$")
    shell.line("echo owner-$((6*7))")
    joined.wait(r"^owner-42$")
    shell.end()


def test_the_owner_is_told_who_ended_the_session(visit: Visit, world: World) -> None:
    user = world.person("user", CRATE)
    shell = open_shell(visit(user).page(), CRATE)
    session = shell.session_id
    page = visit().page("/sessions")
    row = session_row(page, session)
    expect(row).to_contain_text(user)
    row.get_by_role("button", name="End").click()
    dialog = page.get_by_role("dialog", name="End this session?")
    expect(dialog).to_contain_text(user)
    dialog.get_by_role("button", name="End").click()
    expect(page.get_by_text("Session ended")).to_be_visible()
    exited = shell.section.get_by_test_id("terminal-exit")
    expect(exited).to_be_visible()
    expect(exited).to_contain_text(ADMIN)
    # And it is among the finished, with its recording.
    page.get_by_text("Finished", exact=True).click()
    session_row(page, session).get_by_role("link", name="Play").click()
    expect(page.get_by_test_id("player")).to_be_visible()


def test_a_session_left_running_waits_for_its_person(page: Page) -> None:
    shell = open_shell(page, BOX)
    shell.line("LEFT=left-$((6*7)); clear")
    session = shell.session_id
    shell.section.get_by_role("button", name="Close", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Leave it running").click()
    page.get_by_role("link", name="Sessions").first.click()
    row = session_row(page, session)
    expect(row).to_contain_text("Detached", timeout=15_000)
    row.get_by_role("button", name="Return").click()
    shell = Pane(page, BOX)
    shell.line("echo $LEFT")
    shell.wait(r"^left-42$")
    shell.line("exit 7")
    expect(shell.section.get_by_test_id("terminal-exit")).to_have_attribute("data-exit-code", "7")
    page.get_by_role("link", name="Sessions").first.click()
    page.get_by_text("Finished", exact=True).click()
    expect(session_row(page, session)).to_contain_text("Exit 7")


def test_a_users_list_has_their_own_sessions_only(visit: Visit, world: World) -> None:
    shell = open_shell(visit().page(), BOX)
    user = world.person("user", BOX)
    theirs = visit(user).page("/sessions")
    expect(theirs.get_by_text("No sessions").first).to_be_visible()
    expect(session_row(theirs, shell.session_id)).to_have_count(0)
    expect(theirs.get_by_role("navigation").get_by_text(re.compile("^Audit$"))).to_have_count(0)
    shell.end()
