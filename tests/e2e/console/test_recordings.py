"""Recordings: searched, played faster, idle time skipped, jumped into, downloaded, deleted."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

from playwright.sync_api import Page, expect

from tests.e2e.console.casts import output, place_recording
from tests.e2e.console.panes import open_shell, until
from tests.e2e.console.world import BOX, Visitor, World
from tests.e2e.programs import unique
from underpass.store.files.recording_file import Item, Marked

TWO_HOURS = 7200
STEP = 0.1


def open_recording(page: Page, world: World, recording_id: str, query: str = "") -> None:
    page.goto(f"{world.gateway.url}/recordings/{recording_id}{query}")
    expect(page.get_by_test_id("player").locator(".ap-player")).to_be_visible(timeout=30_000)


def play(page: Page) -> None:
    page.get_by_test_id("player").locator(".ap-player").click()


def speed(page: Page, times: str) -> None:
    page.get_by_text(f"{times}×", exact=True).click()


def test_speed_and_idle_time(page: Page, world: World) -> None:
    """Forty seconds, thirty of them idle: eight times as fast without the idle time is quick."""
    items: list[Item] = [output(n, f"step-{n}\r\n") for n in range(5)]
    items += [output(35 + n, f"late-{n}\r\n") for n in range(6)]
    open_recording(page, world, place_recording(world, BOX, items, "idle"))
    speed(page, "8")
    skip = page.get_by_label("Skip idle time")
    expect(skip).to_be_checked()
    started = time.monotonic()
    play(page)
    expect(page.get_by_test_id("player")).to_contain_text("late-5", timeout=15_000)
    took = time.monotonic() - started
    print(f"40 s recording, 8x, idle skipped: {took:.1f} s")
    # With the idle time: 40 s at 8x take 5 s, so that the late lines can't be there at once.
    skip.set_checked(False, force=True)
    speed(page, "0.5")
    page.reload()
    expect(page.get_by_label("Skip idle time")).not_to_be_checked()  # kept in this browser
    expect(page.get_by_test_id("player").locator(".ap-player")).to_be_visible()
    play(page)
    expect(page.get_by_test_id("player")).to_contain_text("step-1")
    expect(page.get_by_test_id("player")).not_to_contain_text("late")


def test_markers_and_hits_jump_to_their_moment(page: Page, world: World) -> None:
    word = unique("hit").replace("-", "")
    items: list[Item] = [output(n, f"line-{n}\r\n") for n in range(100)]
    items.insert(50, Marked(50_000_000, "deployed"))
    items.insert(91, output(89.5, f"{word}\r\n"))
    recording = place_recording(world, BOX, items, "markers")
    open_recording(page, world, recording)
    player = page.get_by_test_id("player")
    page.get_by_role("button", name=re.compile("deployed")).click()
    expect(player).to_contain_text("line-49")
    expect(player).not_to_contain_text("line-70")
    page.get_by_label("Search in this recording").fill(word)
    page.get_by_role("button", name=re.compile(word)).click()
    expect(player).to_contain_text(word)
    page.get_by_label("Search in this recording").fill("never-there")
    expect(page.get_by_text("No hits")).to_be_visible()
    # From the list: a hit is a link to its moment.
    page.get_by_role("link", name="Recordings").first.click()
    page.get_by_label("Search what was on screen").fill(word)
    row = page.locator("tr.hits").filter(has_text=word)
    row.get_by_role("link").first.click()
    expect(page.get_by_test_id("player")).to_contain_text(word)
    expect(page).to_have_url(re.compile(rf"{recording}\?t=89"))


def two_hours() -> Iterator[Item]:
    for step in range(int(TWO_HOURS / STEP)):
        at = step * STEP
        yield output(at, f"\x1b[3{step % 8}mframe-{at:.1f}\x1b[0m some words of output\r\n")
        if step == int(0.9 * TWO_HOURS / STEP):
            yield Marked(int(at * 1e6) + 1, "ninety percent")


def test_two_hours_open_and_seek_to_ninety_percent(page: Page, world: World) -> None:
    recording = place_recording(world, BOX, two_hours(), "two hours")
    started = time.monotonic()
    page.goto(f"{world.gateway.url}/recordings/{recording}")
    marker = page.get_by_role("button", name=re.compile("ninety percent"))
    player = page.get_by_test_id("player")
    expect(player.locator(".ap-player")).to_be_visible(timeout=60_000)
    expect(player).to_contain_text("frame-", timeout=60_000)
    print(f"two-hour cast opened in {time.monotonic() - started:.2f} s")
    started = time.monotonic()
    marker.click()
    at = f"{0.9 * TWO_HOURS:.1f}"
    expect(player).to_contain_text(f"frame-{at}", timeout=30_000)
    print(f"seek to 90 % took {time.monotonic() - started:.2f} s")
    # A link straight to the moment, as hits and colleagues have it.
    started = time.monotonic()
    open_recording(page, world, recording, f"?t={at}")
    expect(player).to_contain_text(f"frame-{at}", timeout=60_000)
    print(f"link to 90 % opened in {time.monotonic() - started:.2f} s")


def test_a_running_session_is_seen_live_and_then_played(
    page: Page, visit: Callable[..., Visitor], world: World
) -> None:
    shell = open_shell(page, BOX)
    shell.line("clear; echo before-$((6*7))")
    shell.wait(r"^before-42$")
    auditor = visit(world.person("auditor")).page("/recordings")
    rows = auditor.get_by_test_id("recording").filter(has_text="Recording")
    rows.first.get_by_role("link").first.click()
    live = auditor.get_by_test_id("live-recording")
    expect(auditor.get_by_text("Live", exact=True)).to_be_visible()
    shell.line("echo after-$((6*7))")
    until(
        auditor,
        "() => /^before-42$[^]*^after-42$/m.test(document.querySelector("
        "'[data-testid=live-recording]').readText())",
    )
    shell.end()
    player = auditor.get_by_test_id("player")
    expect(player.locator(".ap-player")).to_be_visible(timeout=15_000)  # by itself, once it is over
    expect(live).to_have_count(0)


def test_a_recording_is_downloaded_and_deleted(page: Page, world: World) -> None:
    recording = place_recording(world, BOX, [output(0.5, "gone soon\r\n")], unique("delete"))
    open_recording(page, world, recording)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == f"{recording}.cast"
    assert "gone soon" in download.value.path().read_text()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="Recordings")).to_be_visible()
    expect(page.locator(f"[data-recording-id='{recording}']")).to_have_count(0)
    assert world.admin.get(f"/api/v1/recordings/{recording}").status_code == 404
