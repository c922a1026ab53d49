"""The terminal page: tabs, splits, search, font, paste, reload, a lost link, windows, a phone."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.e2e.cable import Cable
from tests.e2e.console.panes import PROMPT, Pane, open_shell
from tests.e2e.console.world import BOX, CRATE, Visitor, World
from tests.e2e.programs import AgentProgram, killing, unique

Visit = Callable[..., Visitor]


def test_two_machines_in_two_tabs(page: Page) -> None:
    box = open_shell(page, BOX)
    box.line("echo on-box-$((6*7))")
    box.wait(r"^on-box-42$")
    page.get_by_role("button", name="New terminal").click()
    page.get_by_role("menuitem", name=CRATE).click()
    crate = Pane(page, CRATE).ready()
    expect(box.section).to_be_hidden()
    crate.line("echo on-crate-$((6*7))")
    crate.wait(r"^on-crate-42$")
    assert "on-box" not in crate.text()
    tabs = page.get_by_role("list", name="Open terminals").get_by_role("listitem")
    expect(tabs).to_have_count(2)
    tabs.first.get_by_role("button").first.click()
    expect(crate.section).to_be_hidden()
    box.line("echo still-$((6*7))")
    assert "on-box-42" in box.wait(r"^still-42$")
    # Looking at another page ends nothing.
    page.get_by_role("link", name="Overview").first.click()
    page.get_by_role("link", name="Terminal").first.click()
    box.end()
    tabs.first.get_by_role("button", name=re.compile("^Close")).click()
    expect(tabs).to_have_count(1)
    # Closing a shell that runs asks what becomes of it.
    tabs.first.get_by_role("button", name=re.compile("^Close")).click()
    page.get_by_role("dialog").get_by_role("button", name="End the shell").click()
    expect(page.get_by_text("No terminal open")).to_be_visible()


def test_a_split_shows_two_machines_at_once(page: Page) -> None:
    box = open_shell(page, BOX)
    box.section.get_by_role("button", name="Split right").click()
    page.get_by_role("menuitem", name=CRATE).click()
    crate = Pane(page, CRATE).ready()
    for pane, name in ((box, "left"), (crate, "right")):
        pane.line(f"echo {name}-$((6*7)); stty size")
        pane.wait(rf"^{name}-42$")
    expect(box.section).to_be_visible()
    assert "right-42" not in box.text()
    assert "left-42" not in crate.text()
    left, right = box.section.bounding_box(), crate.section.bounding_box()
    assert left is not None
    assert right is not None
    assert abs(left["width"] - right["width"]) < 4
    # The divider gives the keyboard a way as well, and both shells learn their new widths.
    divider = page.get_by_role("separator", name="Move the divider")
    divider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    expect(divider).to_have_attribute("aria-valuenow", "35")
    left_columns = box.columns()
    assert left_columns < crate.columns()
    crate.screen.click()
    page.keyboard.press("Control+Shift+O")
    below = Pane(page, CRATE, nth=1).ready()
    below.end()
    below.section.get_by_role("button", name="Close").first.click()
    box.end()
    crate.end()


def test_text_is_found_in_the_scrollback(page: Page) -> None:
    shell = open_shell(page, BOX)
    shell.line("clear; for i in $(seq 200); do echo line $i; done; echo nee''dle; echo nee''dle")
    shell.wait(r"^needle\nneedle$")
    page.keyboard.press("Control+Shift+F")
    search = shell.section.get_by_role("search")
    search.get_by_label("Find in the terminal").fill("needle")
    expect(search.get_by_role("status")).to_have_text(re.compile(r"^[12] / 2$"))
    first = search.get_by_role("status").inner_text()
    search.get_by_role("button", name="Next hit").click()
    expect(search.get_by_role("status")).not_to_have_text(first)
    search.get_by_label("Find in the terminal").fill("line 17")
    expect(search.get_by_role("status")).to_have_text(re.compile(r"/ 11$"))
    search.get_by_label("Find in the terminal").fill("nowhere")
    expect(search.get_by_role("status")).to_have_text("No hits")
    page.keyboard.press("Escape")
    expect(search).to_have_count(0)
    page.keyboard.type("echo focus-$((6*7))\n")  # back in the shell without a click
    shell.wait(r"^focus-42$")
    shell.end()


def test_a_larger_font_leaves_fewer_columns(page: Page) -> None:
    shell = open_shell(page, BOX)
    before = shell.columns()
    shell.section.get_by_role("button", name="Terminal settings").click()
    page.get_by_label("Font size").fill("22")
    page.get_by_label("Font size").press("Enter")
    page.keyboard.press("Escape")
    larger = shell.columns()
    assert larger < before * 0.75
    page.keyboard.press("Control+-")
    assert larger < shell.columns() < before
    page.reload()
    shell.ready()
    assert larger < shell.columns() < before  # kept in this browser
    shell.end()


def test_pasting_several_lines_asks_first(visit: Visit) -> None:
    visitor = visit(permissions=["clipboard-read", "clipboard-write"])
    page = visitor.page()
    shell = open_shell(page, BOX)
    shell.line("bind 'set enable-bracketed-paste off' 2>/dev/null; clear")
    shell.wait(PROMPT)

    def paste(text: str) -> None:
        page.evaluate("text => navigator.clipboard.writeText(text)", text)
        shell.screen.click()
        page.keyboard.press("Control+Shift+V")

    paste("echo one-$((6*7))")
    shell.wait(r"echo one-\$\(\(6\*7\)\)$")  # one line: pasted, not run, not asked about
    page.keyboard.press("Enter")
    shell.wait(r"^one-42$")
    paste("echo two-$((6*7))\necho three-$((6*7))\n")
    dialog = page.get_by_role("dialog", name="Paste 3 lines?")
    expect(dialog).to_contain_text("echo three")
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_have_count(0)
    assert "echo two" not in shell.text()
    paste("echo four-$((6*7))\necho five-$((6*7))\n\x03")
    page.get_by_role("dialog").get_by_role("button", name="Paste").click()
    shell.wait(r"^four-42$")
    assert "two-42" not in shell.wait(r"^five-42$")
    shell.end()


def test_a_reload_returns_to_the_same_shell(page: Page) -> None:
    shell = open_shell(page, BOX)
    shell.line("KEPT=kept-$((6*7)); clear; for i in $(seq 200); do echo n$i; sleep 0.01; done")
    shell.wait(r"^n20$")
    session = shell.session_id
    page.reload()
    text = shell.ready().wait(r"^n200$")
    assert re.findall(r"^n(\d+)$", text, re.MULTILINE) == [str(n) for n in range(1, 201)]
    assert shell.session_id == session
    shell.line("echo $KEPT")
    shell.wait(r"^kept-42$")
    shell.end()


def test_a_lost_link_is_said_and_mends_by_itself(page: Page, world: World, tmp_path: Path) -> None:
    name = unique("wired")
    cable = Cable(world.gateway.port)
    token = world.gateway.join_token(world.admin, uses=1)
    agent = AgentProgram(tmp_path, world.gateway, name, token=token)
    agent.arguments[agent.arguments.index("--server") + 1] = f"http://localhost:{cable.port}"
    try:
        with killing(agent.start()):
            world.machine(name)
            shell = open_shell(page, name)
            shell.line("PS1='$ '; clear; while sleep 0.1; do echo tick-$((++i)); done")
            shell.wait(r"^tick-3$")
            cable.cut(stay_down=True)
            strip = shell.section.get_by_test_id("terminal-trunk-lost")
            expect(strip).to_contain_text(name, timeout=20_000)
            before = shell.text()
            page.keyboard.press("Control+c")
            page.keyboard.type("echo typed-while-away-$((6*7))\n")
            cable.mend()
            expect(strip).to_have_count(0, timeout=30_000)
            text = shell.wait(r"^typed-while-away-42$")
            assert len(text) > len(before)
            ticks = [int(n) for n in re.findall(r"^tick-(\d+)$", text, re.MULTILINE)]
            assert ticks == list(range(1, len(ticks) + 1))  # not a byte lost or doubled
            shell.end()
    finally:
        cable.close()


def test_the_round_trip_is_on_show(page: Page) -> None:
    shell = open_shell(page, BOX)
    rtt = shell.section.get_by_test_id("terminal-rtt")
    expect(rtt).to_have_text(re.compile(r"^\d+ ms$"), timeout=20_000)
    print("round trip:", rtt.inner_text())
    shell.end()


def test_a_second_window_takes_the_shell_and_the_first_takes_it_back(visit: Visit) -> None:
    visitor = visit()
    first_page = visitor.page()
    first = open_shell(first_page, BOX)
    first.line("MINE=mine-$((6*7)); clear")
    session = first.session_id
    second_page = visitor.page("/sessions")
    row = second_page.locator(f"[data-session-id='{session}']")
    row.get_by_role("button", name="Return").click()
    second = Pane(second_page, BOX).ready()
    second.line("echo $MINE")
    second.wait(r"^mine-42$")
    failed = first.section.get_by_test_id("terminal-failed")
    expect(failed).to_contain_text("open in another window of yours")
    failed.get_by_role("button", name="Use it here").click()
    expect(failed).to_have_count(0)
    first.line("echo back-$((6*7))")
    first.wait(r"^back-42$")
    expect(second.section.get_by_test_id("terminal-failed")).to_be_visible()
    first.end()


def test_a_phone_has_the_keys_its_keyboard_lacks(visit: Visit) -> None:
    visitor = visit(viewport={"width": 390, "height": 780}, has_touch=True, is_mobile=True)
    page = visitor.page("/machines")
    page.get_by_role("row").filter(has_text=BOX).get_by_role("button", name="Terminal").tap()
    shell = Pane(page, BOX).ready()
    keys = shell.section.get_by_role("toolbar", name="Extra keys")
    expect(keys).to_be_visible()
    shell.screen.tap()
    page.keyboard.type("PS1='$ '; clear; cat -v\n")
    shell.wait(r"^$")
    for name in ("Esc", "Left", "Down", "Up", "Right"):
        keys.get_by_role("button", name=name, exact=True).tap()
    page.keyboard.press("Enter")
    shell.wait(r"\^\[\^\[\[D\^\[\[B\^\[\[A\^\[\[C")
    control = keys.get_by_role("button", name="Ctrl", exact=True)
    control.tap()
    expect(control).to_have_attribute("aria-pressed", "true")
    page.keyboard.type("c")
    shell.wait(r"\^C\n\$ ?$")
    expect(control).to_have_attribute("aria-pressed", "false")
    page.keyboard.type("echo first-$((6*7))\n")
    shell.wait(r"^first-42$")
    page.keyboard.type("clear\n")
    keys.get_by_role("button", name="Up", exact=True).tap()
    keys.get_by_role("button", name="Up", exact=True).tap()
    page.keyboard.press("Enter")
    shell.wait(r"^first-42$")
    keys.get_by_role("button", name="Tab", exact=True).tap()
    overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert overflow <= 0
    shell.end()


def test_the_keyboard_alone_goes_from_sign_in_to_a_shell(visit: Visit) -> None:
    page = visit(None).page("/")
    expect(page.get_by_label("User name")).to_be_focused()
    page.keyboard.type("root-admin")
    page.keyboard.press("Tab")
    page.keyboard.type("correct horse battery")
    page.keyboard.press("Enter")
    expect(page.get_by_role("navigation")).to_be_visible(timeout=15_000)

    def tab_to(name: str, most: int = 60) -> None:
        for _ in range(most):
            page.keyboard.press("Tab")
            focused = page.evaluate(
                "(e => (e.ariaLabel ?? e.innerText).trim())(document.activeElement)"
            )
            if focused == name:
                return
        raise AssertionError(f"{name!r} was not reached by Tab")

    tab_to("Machines")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name=BOX, exact=True)).to_be_visible()
    tab_to(BOX)
    tab_to("Terminal")
    page.keyboard.press("Enter")
    shell = Pane(page, BOX).ready()
    page.keyboard.type("echo keys-$((6*7)); exit\n")
    shell.wait(r"^keys-42$")
