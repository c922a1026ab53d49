"""Debian's Chromium driven by Playwright, without anything that would reach for the internet."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.e2e.programs import ADMIN, PASSWORD, GatewayProgram

__all__ = [
    "CONSOLE",
    "chromium",
    "open_terminal",
    "screen_text",
    "sign_in",
    "type_line",
    "wait_for",
]

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
CONSOLE = Path(__file__).parents[2] / "src/underpass/gateway/console/index.html"


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium, closed at the end."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=ARGUMENTS, headless=True
        )
        try:
            yield browser
        finally:
            browser.close()


def sign_in(page: Page, gateway: GatewayProgram, user: str = ADMIN) -> None:
    """Sign in through the form."""
    page.goto(gateway.url)
    page.get_by_label("User name").fill(user)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("navigation")).to_be_visible(timeout=15_000)


def open_terminal(page: Page, machine: str) -> None:
    """From anywhere: Machines, then the machine's Terminal button, until the prompt shows."""
    page.get_by_role("link", name="Machines").first.click()
    row = page.get_by_role("row").filter(has_text=machine)
    row.get_by_role("button", name="Terminal").click()
    wait_for(page, r"[$#] ?$")


def screen_text(page: Page) -> str:
    """What the visible terminal shows, scrollback included."""
    return str(
        page.evaluate(
            "() => [...document.querySelectorAll('[data-testid=terminal]')]"
            ".filter(e => e.offsetParent !== null)"
            ".map(e => e.readText ? e.readText() : '').join('\\n')"
        )
    )


def wait_for(page: Page, pattern: str, timeout: float = 20.0) -> str:
    """Wait until the visible terminal's text matches *pattern* (multi-line)."""
    expression = re.compile(pattern, re.MULTILINE)
    deadline = time.monotonic() + timeout
    text = ""
    while time.monotonic() < deadline:
        text = screen_text(page).rstrip()
        if expression.search(text):
            return text
        page.wait_for_timeout(50)
    raise AssertionError(f"the terminal never showed {pattern!r}; it shows: {text[-800:]!r}")


def type_line(page: Page, text: str) -> None:
    """Type *text* and Enter, key by key, as a person would."""
    page.keyboard.type(text)
    page.keyboard.press("Enter")
