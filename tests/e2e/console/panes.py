"""Terminals on a page, each by the machine it leads to."""

from __future__ import annotations

import re
import time

from playwright.sync_api import Locator, Page, expect

from tests.e2e.programs import unique

__all__ = ["PROMPT", "Pane", "open_shell", "until"]

PROMPT = r"[$#] ?$"


class Pane:
    """One terminal in sight.

    Args:
        machine: the machine's name; None: the only pane.
        nth: which of several on that machine.
    """

    def __init__(self, page: Page, machine: str | None = None, nth: int = 0) -> None:
        self.page = page
        name = f"Terminal on {machine}" if machine else re.compile("^Terminal on ")
        self.section: Locator = page.get_by_role("region", name=name, exact=True).nth(nth)
        self.screen = self.section.get_by_test_id("terminal")

    def text(self) -> str:
        """What it shows, scrollback included."""
        return str(self.screen.evaluate("e => e.readText ? e.readText() : ''")).rstrip()

    def wait(self, pattern: str, timeout: float = 20.0) -> str:
        """Wait until the text matches *pattern* (multi-line)."""
        expression = re.compile(pattern, re.MULTILINE)
        deadline = time.monotonic() + timeout
        expect(self.screen).to_be_visible(timeout=timeout * 1000)
        while not expression.search(text := self.text()):
            if time.monotonic() > deadline:
                raise AssertionError(f"never showed {pattern!r}; it shows: {text[-800:]!r}")
            self.page.wait_for_timeout(40)
        return text

    def ready(self) -> Pane:
        """Wait for the shell's prompt."""
        expect(self.screen).to_have_attribute("data-phase", "attached", timeout=20_000)
        self.wait(PROMPT)
        return self

    def line(self, text: str) -> None:
        """Click into it and type *text* and Enter."""
        self.screen.click()
        self.page.keyboard.type(text)
        self.page.keyboard.press("Enter")

    def columns(self) -> int:
        """How wide the shell believes its terminal is."""
        mark = unique("cols")
        self.line(f"echo {mark[:4]}''{mark[4:]} $(stty size)")
        text = self.wait(rf"^{mark} \d+ \d+$")
        return int(re.findall(rf"^{mark} \d+ (\d+)$", text, re.MULTILINE)[-1])

    @property
    def session_id(self) -> str:
        return str(self.screen.get_attribute("data-session-id"))

    def end(self) -> None:
        """Leave the shell, so that no test meets another's session."""
        self.line("exit")
        expect(self.section.get_by_test_id("terminal-exit")).to_be_visible()


def open_shell(page: Page, machine: str) -> Pane:
    """From any page in sight: Machines, then the machine's Terminal button, then the prompt."""
    page.get_by_role("link", name="Machines").first.click()
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name=machine, exact=True))
    row.get_by_role("button", name="Terminal").click()
    return Pane(page, machine).ready()


def until(page: Page, function: str, timeout: float = 15.0) -> None:
    """Wait until *function* gives something true in the page.

    Playwright's own ``wait_for_function`` evaluates strings in the page, which its policy forbids.
    """
    deadline = time.monotonic() + timeout
    while not page.evaluate(function):
        if time.monotonic() > deadline:
            raise AssertionError(f"within {timeout:g} s this never held: {function}")
        page.wait_for_timeout(50)
