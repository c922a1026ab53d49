"""A newcomer goes from the printed address to a shell in the browser, and sees its exit code."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.browser import chromium, open_terminal, sign_in, type_line, wait_for
from tests.e2e.programs import PASSWORD, AgentProgram, GatewayProgram, eventually

FLOOD_SECONDS = float(os.environ.get("UNDERPASS_TEST_FLOOD_SECONDS", "5"))

pytestmark = pytest.mark.needs("chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as made:
        yield made


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    try:
        yield page
    finally:
        context.close()
    assert not problems, problems


def test_from_the_printed_address_to_exit_three(page: Page, tmp_path: Path) -> None:
    gateway = GatewayProgram(tmp_path, admin=False, local_agent=True).start()
    try:
        address = eventually(
            lambda: re.search(r"Underpass is ready: (\S+/setup\?code=\S+)", gateway.text()),
            20,
            "the set-up address",
        ).group(1)
        page.goto(address)
        page.get_by_label("User name").fill("ada")
        page.get_by_label("Password", exact=True).fill(PASSWORD)
        page.get_by_label("Password again").fill(PASSWORD)
        page.get_by_role("button", name="Create and sign in").click()
        button = page.get_by_role("row").get_by_role("button", name="Terminal")
        expect(button).to_be_enabled(timeout=20_000)
        started = time.monotonic()
        button.click()
        wait_for(page, r"[$#] ?$")
        print(f"click to prompt: {time.monotonic() - started:.2f} s")
        type_line(page, "echo $((6*7))")
        wait_for(page, r"^42$")
        type_line(page, "exit 3")
        ended = page.get_by_test_id("terminal-exit")
        expect(ended).to_contain_text("3")
        expect(ended).to_have_attribute("data-exit-code", "3")
        assert "code=" not in page.url
    finally:
        gateway.close()


def test_a_pending_machine_is_approved_in_the_console(
    page: Page, gateway: GatewayProgram, tmp_path: Path
) -> None:
    sign_in(page, gateway)
    agent = AgentProgram(tmp_path, gateway, "newcomer").start()
    try:
        page.get_by_role("link", name="Machines").first.click()
        application = page.get_by_test_id("enrolment")
        expect(application).to_contain_text("newcomer", timeout=20_000)
        application.get_by_role("button", name=re.compile("Approve")).click()
        button = page.get_by_role("row").get_by_role("button", name="Terminal")
        expect(button).to_be_enabled(timeout=30_000)
    finally:
        agent.stop()


def test_the_console_reconnects_to_the_same_shell_after_a_gateway_restart(
    page: Page, gateway: GatewayProgram, machine: str
) -> None:
    sign_in(page, gateway)
    open_terminal(page, "box")
    type_line(page, "export KEPT=kept-$((40+2)); PS1='$ '")
    wait_for(page, r"^\$ ?$")
    type_line(page, "for i in $(seq 1 300); do echo line-$i; sleep 0.02; done")
    wait_for(page, r"^line-30$")
    gateway.kill()
    expect(page.get_by_test_id("terminal-reconnecting")).to_be_visible(timeout=15_000)
    gateway.start()
    text = wait_for(page, r"^line-300$", 40)
    assert [int(n) for n in re.findall(r"^line-(\d+)$", text, re.M)] == list(range(1, 301))
    type_line(page, "echo $KEPT")
    wait_for(page, r"^kept-42$")


def test_a_flood_leaves_the_page_usable(page: Page, gateway: GatewayProgram, machine: str) -> None:
    sign_in(page, gateway)
    open_terminal(page, "box")
    type_line(page, "PS1='$ '; seq 3000; echo warm")  # the scrollback is full before we measure
    wait_for(page, r"^warm$")
    protocol = page.context.new_cdp_session(page)
    protocol.send("Performance.enable")

    def heap() -> float:
        protocol.send("HeapProfiler.collectGarbage")
        metrics = protocol.send("Performance.getMetrics")["metrics"]
        return next(float(one["value"]) for one in metrics if one["name"] == "JSHeapUsedSize")

    before = heap()
    type_line(page, "yes")
    wait_for(page, r"^y$")
    page.wait_for_timeout(FLOOD_SECONDS * 1000)  # let it flood: that is what is measured
    assert heap() - before < 32 << 20
    page.keyboard.press("Control+c")
    wait_for(page, r"\^C\n\$ ?$", 5)
    type_line(page, "echo still-$((6*7))")
    wait_for(page, r"^still-42$")


def test_a_recording_is_listed_played_and_searched(
    page: Page, gateway: GatewayProgram, machine: str
) -> None:
    sign_in(page, gateway)
    open_terminal(page, "box")
    type_line(page, "echo find-me-$((6*7)); exit")
    expect(page.get_by_test_id("terminal-exit")).to_be_visible()
    page.get_by_role("link", name="Recordings").first.click()
    page.get_by_label("Search what was on screen").fill("find-me-42")
    hit = page.locator("tr.hits").get_by_text("find-me-42").first
    expect(hit).to_be_visible(timeout=15_000)
    expect(page.get_by_test_id("recording")).to_have_count(1)
    page.get_by_test_id("recording").get_by_role("link").first.click()
    player = page.get_by_test_id("player")
    expect(player).to_be_visible(timeout=15_000)
    page.get_by_label("Search in this recording").fill("find-me-42")
    page.get_by_role("button", name=re.compile("find-me-42")).first.click()
    expect(player).to_contain_text("find-me-42", timeout=15_000)
