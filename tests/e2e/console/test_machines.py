"""Machines: found, let in, joined by command, looked at, changed, put aside, deleted."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from tests.e2e.console.panes import open_shell, until
from tests.e2e.console.world import BOX, CRATE, Visitor, World
from tests.e2e.programs import AgentProgram, Program, eventually, killing, unique


def row(page: Page, machine: str) -> Locator:
    link = page.get_by_role("link", name=machine, exact=True)
    return page.get_by_role("row").filter(has=link)


def open_machine(page: Page, machine: str) -> None:
    page.get_by_role("link", name="Machines").first.click()
    page.get_by_role("link", name=machine, exact=True).click()
    expect(page.get_by_role("heading", name=machine)).to_be_visible()


def test_the_list_is_filtered_by_text_and_by_label(page: Page) -> None:
    page.get_by_role("link", name="Machines").first.click()
    expect(row(page, BOX)).to_be_visible()
    expect(row(page, CRATE)).to_be_visible()
    filter_ = page.get_by_label("Filter: text, or env=prod")
    filter_.fill("cra")
    expect(row(page, BOX)).to_have_count(0)
    expect(row(page, CRATE)).to_be_visible()
    filter_.fill("env=dev")
    expect(row(page, CRATE)).to_have_count(0)
    expect(row(page, BOX)).to_be_visible()
    expect(page).to_have_url(re.compile(r"q=env"))  # can be kept and sent
    page.reload()
    expect(row(page, BOX)).to_be_visible()
    expect(row(page, CRATE)).to_have_count(0)
    page.get_by_role("button", name="Clear").click()
    page.get_by_text("env=prod", exact=True).locator("visible=true").first.click()
    expect(row(page, BOX)).to_have_count(0)
    filter_.fill("no-such-machine")
    expect(page.get_by_text("No machine matches")).to_be_visible()


def test_applications_are_approved_and_rejected(page: Page, world: World, tmp_path: Path) -> None:
    welcome, unwelcome = unique("welcome"), unique("unwelcome")
    agents = [AgentProgram(tmp_path, world.gateway, name) for name in (welcome, unwelcome)]
    page.get_by_role("link", name="Machines").first.click()
    with killing(*agents):
        for agent in agents:
            agent.start()
        for name in (welcome, unwelcome):
            application = page.get_by_test_id("enrolment").filter(has_text=name)
            expect(application).to_be_visible(timeout=20_000)  # by itself: nobody reloads
        page.get_by_role("button", name=f"Reject {unwelcome}").click()
        expect(page.get_by_text(f"{unwelcome} was turned away")).to_be_visible()
        page.get_by_role("button", name=f"Approve {welcome}").click()
        expect(page.get_by_text(f"{welcome} is in")).to_be_visible()
        expect(page.get_by_test_id("enrolment").filter(has_text="welcome")).to_have_count(0)
        button = row(page, welcome).get_by_role("button", name="Terminal")
        expect(button).to_be_enabled(timeout=30_000)
        expect(row(page, unwelcome)).to_have_count(0)
        eventually(lambda: "enrolment_rejected" in agents[1].text(), 10, "the agent being told")


def test_the_join_command_on_show_works_as_it_stands(
    page: Page, world: World, tmp_path: Path
) -> None:
    page.get_by_role("link", name="Machines").first.click()
    before = {one["id"] for one in world.admin.get("/api/v1/assets").json()["data"]["items"]}
    page.get_by_role("button", name="Add a machine").click()
    dialog = page.get_by_role("dialog", name="Add a machine")
    dialog.get_by_label("Labels").fill("team=joined")
    dialog.get_by_label("Labels").press("Enter")
    dialog.get_by_role("button", name="Create join command").click()
    command = shlex.split(dialog.locator("code").inner_text())
    assert command[0] == "underpass"
    agent = Program("joined", tmp_path)
    with killing(agent):
        agent.spawn(command[1:])
        dialog.get_by_role("button", name="Done").click()
        joined = page.get_by_role("row").filter(has_text="team=joined")
        expect(joined.get_by_role("button", name="Terminal")).to_be_enabled(timeout=30_000)

        def fresh() -> dict[str, object] | None:
            items = world.admin.get("/api/v1/assets").json()["data"]["items"]
            return next((one for one in items if one["id"] not in before), None)

        machine = eventually(fresh, 10, "the machine that joined")
        assert machine["labels"] == {"team": "joined"}
        world.admin.delete(f"/api/v1/assets/{machine['id']}")


def test_a_machine_is_renamed_labelled_and_given_to_a_user(
    page: Page, visit: Callable[..., Visitor], world: World
) -> None:
    name, renamed = unique("edit"), unique("renamed")
    world.add_agent(name)
    machine = world.machine(name)
    user = world.person("user")
    theirs = visit(user).page("/machines")
    expect(theirs.get_by_text("No machines yet")).to_be_visible()
    open_machine(page, name)
    page.get_by_role("button", name="Edit").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name", exact=True).fill(renamed)
    dialog.get_by_label("Labels").fill("not a label")
    dialog.get_by_label("Labels").press("Enter")
    expect(dialog.get_by_text("Labels look like env=prod.")).to_be_visible()
    expect(dialog.get_by_role("button", name="Save")).to_be_disabled()
    dialog.get_by_label("Labels").press("Backspace")
    dialog.get_by_label("Labels").fill("shelf=3")
    dialog.get_by_label("Labels").press("Enter")
    dialog.get_by_label("Users who may use it").fill(user)
    page.get_by_role("option", name=user).click()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name=renamed, exact=True)).to_be_visible()
    expect(page.get_by_title("shelf=3")).to_be_visible()
    # Live: the user's page, open all the time, shows the machine they were given.
    expect(row(theirs, renamed).get_by_role("button", name="Terminal")).to_be_enabled()
    assert world.machine(renamed)["id"] == machine["id"]


def test_maintenance_disables_the_terminal_until_it_ends(page: Page, world: World) -> None:
    name = unique("upkeep")
    world.add_agent(name)
    world.machine(name)
    open_machine(page, name)
    terminal = page.get_by_role("main").get_by_role("button", name="Terminal")
    expect(terminal).to_be_enabled()
    for maintenance in (True, False):
        page.get_by_role("button", name="Edit").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Maintenance").set_checked(maintenance, force=True)
        dialog.get_by_role("button", name="Save").click()
        if maintenance:
            expect(terminal).to_be_disabled()
            expect(dialog).to_have_count(0)
            expect(page.get_by_text("No new sessions are opened")).to_be_visible()
        else:
            expect(terminal).to_be_enabled(timeout=30_000)


def test_a_machines_page_has_its_facts_and_charts_that_move(page: Page, world: World) -> None:
    machine = world.machine(BOX)
    open_machine(page, BOX)
    facts = page.get_by_role("main")
    expect(facts).to_contain_text(machine["static_info"]["kernel"])
    expect(facts).to_contain_text("linked")
    expect(facts.get_by_title(machine["key_fingerprint"])).to_be_visible()
    for label in ("CPU", "Memory"):
        chart = page.get_by_role("figure", name=re.compile(f"^{label} "))
        expect(chart).to_have_attribute("aria-label", re.compile(r"\d+"))
    # The line of the memory chart, in pixels of its colour.
    drawn = """() => {
      const canvas = document.querySelectorAll('figure.chart canvas')[1];
      if (!canvas || !canvas.width) return false;
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      let count = 0;
      for (let i = 0; i < data.length; i += 4)
        if (data[i + 2] > data[i] + 60 && data[i + 3] > 150) count++;
      return count > 20;
    }"""
    until(page, drawn)


def test_a_machines_sessions_and_events_are_on_its_page(page: Page, world: World) -> None:
    shell = open_shell(page, CRATE)
    session = shell.session_id
    shell.end()
    open_machine(page, CRATE)
    mine = page.locator(f"[data-session-id='{session}']").filter(has_text="Exit 0")
    expect(mine).to_be_visible()
    expect(page.get_by_role("button", name="session.opened").first).to_be_visible()


def test_a_deleted_machine_leaves_the_list_and_ends_its_shell(page: Page, world: World) -> None:
    name = unique("goner")
    world.add_agent(name)
    machine = world.machine(name)
    shell = open_shell(page, name)
    open_machine(page, name)
    page.get_by_role("button", name="Edit").click()
    page.get_by_role("button", name="Delete machine").click()
    confirm = page.get_by_role("dialog", name=f"Delete {name}?")
    confirm.get_by_role("button", name="Delete machine").click()
    expect(page.get_by_text(f"{name} deleted")).to_be_visible()
    expect(page.get_by_role("heading", name="Machines")).to_be_visible()
    expect(row(page, name)).to_have_count(0)
    assert world.admin.get(f"/api/v1/assets/{machine['id']}").status_code == 404
    page.get_by_role("link", name="Terminal").first.click()
    expect(shell.screen).not_to_have_attribute("data-phase", "attached")
