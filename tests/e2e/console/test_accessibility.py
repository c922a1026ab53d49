"""No serious finding of axe on any page, dialog or menu, in light and in dark."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.console.casts import output, place_recording
from tests.e2e.console.panes import Pane, open_shell
from tests.e2e.console.world import BOX, CRATE, Visitor, World
from tests.e2e.programs import AgentProgram, unique
from tests.e2e.tunnelled import make
from underpass.store.files.recording_file import Marked

AXE = Path(__file__).parents[3] / "web/node_modules/axe-core/axe.min.js"
SERIOUS = ("serious", "critical")

Visit = Callable[..., Visitor]
pytestmark = pytest.mark.skipif(not AXE.exists(), reason="needs axe-core: run `make dev`")


class Inspector:
    """Runs axe on a page as it stands and gathers what it finds."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.findings: list[str] = []

    def look(self, where: str) -> None:
        # Not a script tag: the page's policy forbids what is not its own.
        self.page.evaluate(AXE.read_text())
        # Half-faded text has no contrast; only what has come to rest is looked at.
        self.page.evaluate(
            "() => Promise.race([new Promise(done => setTimeout(done, 2000)), Promise.all("
            "document.getAnimations().filter(one => one.effect?.getComputedTiming().endTime"
            " < Infinity).map(one => one.finished.catch(() => 0)))])"
        )
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        for violation in found["violations"]:
            if violation["impact"] not in SERIOUS:
                continue
            node = violation["nodes"][0]
            self.findings.append(
                f"{where}: {violation['id']} ({len(violation['nodes'])}x) {node['html'][:200]}"
                f" -- {node.get('failureSummary', '')[:300]}"
            )


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def inspect(visit: Visit, scheme: str) -> Iterator[Inspector]:
    inspector = Inspector(visit(color_scheme=scheme).page())
    expect(inspector.page.get_by_role("navigation")).to_be_visible(timeout=20_000)
    expect(inspector.page.locator("html")).to_have_attribute("data-mantine-color-scheme", scheme)
    yield inspector
    assert not inspector.findings, "\n".join(inspector.findings)


@pytest.fixture(scope="module")
def applicant(world: World) -> Iterator[AgentProgram]:
    """A machine that waits for a decision all the time."""
    agent = AgentProgram(world.directory, world.gateway, "applicant")
    world.agents.append(agent.start())
    yield agent


def test_signing_in(visit: Visit, scheme: str, world: World) -> None:
    page = visit(None, color_scheme=scheme).page("/")
    inspector = Inspector(page)
    expect(page.get_by_label("User name")).to_be_visible()
    inspector.look("sign-in")
    page.get_by_label("User name").fill("nobody")
    page.get_by_label("Password", exact=True).fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_be_visible()
    inspector.look("sign-in refused")
    assert not inspector.findings, "\n".join(inspector.findings)


def test_pages(inspect: Inspector, world: World, applicant: AgentProgram) -> None:
    page = inspect.page
    shell = open_shell(page, BOX)
    expect(page.get_by_role("navigation").get_by_role("link", name="Machines")).to_contain_text("1")
    for name in ("Overview", "Machines", "Sessions", "Recordings", "Audit", "Settings"):
        page.get_by_role("navigation").get_by_role("link", name=name).click()
        expect(page.get_by_role("heading", level=1, name=name)).to_be_visible()
        content = page.get_by_role("row").or_(page.get_by_test_id("enrolment"))
        expect(content.nth(1)).to_be_visible()
        inspect.look(name)
    page.get_by_role("navigation").get_by_role("link", name="Machines").click()
    page.get_by_label("Filter: text, or env=prod").fill("no such machine")
    expect(page.get_by_text("No machine matches")).to_be_visible()
    inspect.look("nothing matches")
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("link", name=BOX, exact=True).click()
    expect(page.get_by_role("figure").first).to_be_visible()
    inspect.look("machine")
    page.get_by_role("navigation").get_by_role("link", name="Terminal").click()
    shell.end()


def test_recordings(inspect: Inspector, world: World) -> None:
    page = inspect.page
    items = [output(1, "hello\r\n"), Marked(1_500_000, "a marker"), output(2, "find-this\r\n")]
    recording = place_recording(world, BOX, items, "looked at")
    page.goto(f"{world.gateway.url}/recordings/{recording}")
    expect(page.get_by_test_id("player").locator(".ap-player")).to_be_visible()
    page.get_by_label("Search in this recording").fill("find-this")
    expect(page.get_by_role("button", name=re.compile("find-this"))).to_be_visible()
    inspect.look("recording")
    page.get_by_role("navigation").get_by_role("link", name="Recordings").click()
    page.get_by_label("Search what was on screen").fill("find-this")
    expect(page.locator("tr.hits").first).to_be_visible()
    inspect.look("recordings with hits")
    shell = open_shell(page, CRATE)
    page.goto(f"{world.gateway.url}/recordings")
    page.get_by_test_id("recording").filter(has_text="Recording").get_by_role("link").first.click()
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    inspect.look("live recording")
    page.get_by_role("navigation").get_by_role("link", name="Terminal").click()
    shell.ready().end()


def test_terminals(inspect: Inspector, visit: Visit, world: World) -> None:
    page = inspect.page
    page.get_by_role("navigation").get_by_role("link", name="Terminal").click()
    expect(page.get_by_text("No terminal open")).to_be_visible()
    inspect.look("no terminal")
    box = open_shell(page, BOX)
    inspect.look("terminal")
    box.section.get_by_role("button", name="Split right").click()
    expect(page.get_by_role("menuitem", name=CRATE)).to_be_visible()
    inspect.look("split menu")
    page.get_by_role("menuitem", name=CRATE).click()
    crate = Pane(page, CRATE).ready()
    inspect.look("split")
    crate.screen.click()
    page.keyboard.press("Control+Shift+F")
    crate.section.get_by_role("textbox", name="Find in the terminal").fill("nothing")
    expect(crate.section.get_by_text("No hits")).to_be_visible()
    inspect.look("search in the terminal")
    page.keyboard.press("Escape")
    crate.section.get_by_role("button", name="Terminal settings").click()
    expect(page.get_by_label("Font size")).to_be_visible()
    inspect.look("terminal settings")
    page.keyboard.press("Escape")
    crate.section.get_by_role("button", name="Close", exact=True).click()
    expect(page.get_by_role("dialog", name="The shell is still running")).to_be_visible()
    inspect.look("closing")
    page.get_by_role("button", name="End the shell").click()
    expect(crate.section).to_have_count(0)
    # Taken by another window, then over.
    other = page.context.new_page()
    other.goto(f"{world.gateway.url}/sessions")
    row = other.locator(f"[data-session-id='{box.session_id}']")
    row.get_by_role("button", name="Return").click()
    expect(box.section.get_by_test_id("terminal-failed")).to_be_visible()
    inspect.look("taken by another window")
    other.close()
    box.section.get_by_role("button", name="Use it here").click()
    expect(box.section.get_by_test_id("terminal-failed")).to_have_count(0)
    box.line("exit 1")
    expect(box.section.get_by_test_id("terminal-exit")).to_be_visible()
    inspect.look("exit code")


def test_tunnels(inspect: Inspector, world: World) -> None:
    page = inspect.page
    machine = world.machine(BOX)["id"]
    name = unique("looked-at")
    make(world.admin, machine, name=name, target_port=22, options={"allow_ips": ["192.0.2.0/24"]})
    off = make(world.admin, machine, protocol="udp", target_port=53)
    world.admin.patch(f"/api/v1/mappings/{off['id']}", json={"status": "disabled"})
    page.get_by_role("navigation").get_by_role("link", name="Tunnels").click()
    row = page.get_by_test_id("mapping").filter(has_text=name)
    expect(row.get_by_test_id("mapping-rate")).to_contain_text("B/s")
    inspect.look("tunnels")
    page.get_by_role("button", name="New tunnel").click()
    dialog = page.get_by_role("dialog", name="New tunnel")
    dialog.get_by_role("button", name="More options").click()
    dialog.get_by_role("button", name="Create tunnel").click()
    expect(dialog.get_by_text("This is needed.").first).to_be_visible()
    inspect.look("new tunnel, refused")
    dialog.get_by_text("SOCKS5", exact=True).click()
    expect(dialog.get_by_label("User name")).to_be_visible()
    inspect.look("new proxy")
    page.keyboard.press("Escape")
    page.get_by_role("link", name=name, exact=True).click()
    expect(page.get_by_role("figure")).to_have_count(2)
    inspect.look("tunnel")
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog", name=f"Delete {name}?")).to_be_visible()
    inspect.look("delete a tunnel")
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    page.goto(f"{world.gateway.url}/tunnels?q=no-such-tunnel")
    expect(page.get_by_text("No tunnel matches")).to_be_visible()
    inspect.look("no tunnel matches")


def test_offers(inspect: Inspector, world: World) -> None:
    page = inspect.page
    page.get_by_role("navigation").get_by_role("link", name="Offers").click()
    expect(page.get_by_role("heading", level=1, name="Offers")).to_be_visible()
    inspect.look("offers")
    page.get_by_role("button", name="Lend a port").first.click()
    dialog = page.get_by_role("dialog", name="Lend a port")
    dialog.get_by_role("button", name="Create code").click()
    expect(dialog.get_by_text("This is needed.").first).to_be_visible()
    inspect.look("lend a port, refused")
    dialog.get_by_role("combobox", name="Machine").click()
    page.get_by_role("option", name=BOX, exact=True).click()
    dialog.get_by_label("Target port").fill("22")
    dialog.get_by_role("button", name="Create code").click()
    expect(dialog.get_by_test_id("offer-code")).to_be_visible()
    inspect.look("a code")
    dialog.get_by_role("button", name="Done").click()
    page.get_by_test_id("offer").first.get_by_role("button", name="Withdraw").click()
    expect(page.get_by_role("dialog", name=re.compile("^End access to"))).to_be_visible()
    inspect.look("withdraw an offer")


def test_quotas_and_health(inspect: Inspector, world: World) -> None:
    page, group = inspect.page, unique("group")
    account = world.admin.get("/api/v1/auth/me").json()["data"]["user"]["id"]
    limits = {"max_mappings": 2, "monthly_traffic": 10_000_000}
    route = f"/api/v1/users/{account}/quota"
    down = make(
        world.admin,
        world.machine(BOX)["id"],
        target_port=9,
        group=group,
        health={"type": "tcp", "interval": 1, "fall": 1, "rise": 1},
    )
    assert world.admin.post(route, json=limits).is_success
    try:
        page.get_by_role("navigation").get_by_role("link", name="Settings").click()
        page.get_by_role("button", name="Quota of").first.click()
        expect(page.get_by_role("dialog").get_by_label("Mappings", exact=True)).to_be_visible()
        inspect.look("a quota")
        page.goto(f"{world.gateway.url}/tunnels/{down['id']}")
        expect(page.get_by_test_id("mapping-health")).to_have_text("Down", timeout=20_000)
        inspect.look("a target that is down")
        page.get_by_role("navigation").get_by_role("link", name="Tunnels").click()
        expect(page.get_by_test_id("tunnel-quota")).to_be_visible()
        inspect.look("tunnels with a quota")
    finally:
        world.admin.post(route, json=dict.fromkeys(limits))
        world.admin.delete(f"/api/v1/mappings/{down['id']}")


def test_dialogs_of_machines(inspect: Inspector) -> None:
    page = inspect.page
    page.get_by_role("navigation").get_by_role("link", name="Machines").click()
    page.get_by_role("button", name="Add a machine").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    inspect.look("add a machine")
    dialog.get_by_role("button", name="Create join command").click()
    expect(dialog.locator("code")).to_be_visible()
    inspect.look("join command")
    dialog.get_by_role("button", name="Done").click()
    page.get_by_role("link", name=BOX, exact=True).click()
    page.get_by_role("button", name="Edit").click()
    expect(dialog).to_be_visible()
    inspect.look("edit a machine")
    dialog.get_by_role("button", name="Delete machine").click()
    expect(page.get_by_role("dialog", name=f"Delete {BOX}?")).to_be_visible()
    inspect.look("delete a machine")
    page.get_by_role("dialog", name=f"Delete {BOX}?").get_by_role("button", name="Cancel").click()


def test_dialogs_of_settings(inspect: Inspector) -> None:
    page = inspect.page
    page.get_by_role("navigation").get_by_role("link", name="Settings").click()
    dialog = page.get_by_role("dialog")
    for button in ("Add a user", "Create a key"):
        page.get_by_role("button", name=button).click()
        expect(dialog).to_be_visible()
        inspect.look(button)
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)
    page.get_by_label("Present password").fill("x")
    page.get_by_label("New password").fill("short")
    page.get_by_label("Password again").fill("short")
    page.get_by_role("button", name="Change password").click()
    expect(page.get_by_role("alert")).to_be_visible()
    inspect.look("password refused")


def test_the_frame(inspect: Inspector) -> None:
    page = inspect.page
    page.keyboard.press("Control+k")
    expect(page.get_by_role("textbox", name="Go to a machine or page…")).to_be_focused()
    inspect.look("palette")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Account").click()
    expect(page.get_by_role("menuitem", name="Sign out")).to_be_visible()
    inspect.look("account menu")


def test_a_phone(visit: Visit, scheme: str) -> None:
    phone = {"viewport": {"width": 390, "height": 780}, "has_touch": True, "is_mobile": True}
    page = visit(color_scheme=scheme, **phone).page("/machines")
    inspector = Inspector(page)
    expect(page.get_by_role("link", name=BOX, exact=True)).to_be_visible()
    inspector.look("machines on a phone")
    page.get_by_role("button", name="Menu").tap()
    expect(page.get_by_role("link", name="Audit")).to_be_visible()
    inspector.look("menu on a phone")
    page.get_by_role("button", name="Menu").tap()
    page.get_by_role("row").filter(has_text=BOX).get_by_role("button", name="Terminal").tap()
    shell = Pane(page, BOX).ready()
    inspector.look("terminal on a phone")
    shell.end()
    assert not inspector.findings, "\n".join(inspector.findings)
