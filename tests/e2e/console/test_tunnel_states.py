"""Tunnels that nobody decides about here: a machine declares them, or their target is down."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.console.test_tunnels_page import refused, row
from tests.e2e.console.world import BOX, CRATE, Visitor, World
from tests.e2e.programs import free_port, unique
from tests.e2e.tunnelled import echo, make, tcp_server

Visit = Callable[..., Visitor]
ROUTE = "/api/v1/mappings"


@pytest.fixture(scope="module")
def target() -> Iterator[int]:
    """A port whose server sends everything back."""
    with tcp_server(echo) as port:
        yield port


def stored(world: World, name: str) -> list[dict[str, Any]]:
    return list(world.admin.get(ROUTE, params={"q": name}).json()["data"]["items"])


def let_declare(page: Page, world: World, allowed: bool) -> None:
    """Switch it in the dialog of ``box``."""
    page.goto(f"{world.gateway.url}/machines/{world.machine(BOX)['id']}")
    page.get_by_role("button", name="Edit").click()
    dialog = page.get_by_role("dialog", name=f"Edit {BOX}")
    switch = dialog.get_by_role("switch", name="May declare tunnels")
    expect(switch).to_be_checked(checked=not allowed)
    switch.set_checked(allowed)
    warning = dialog.get_by_text("deleted at once")
    expect(warning).to_have_count(0 if allowed else 1)
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_have_count(0)
    said = "allowed" if allowed else "not allowed"
    expect(page.get_by_role("row").filter(has_text="Declares tunnels")).to_have_text(
        re.compile(f"Declares tunnels\\s*{said}$")
    )


def test_an_admin_lets_a_machine_declare_and_takes_it_back(
    page: Page, world: World, target: int
) -> None:
    name = unique("declared")
    agent = next(one for one in world.agents if one.agent_name == BOX)
    let_declare(page, world, allowed=True)
    file = agent.state / "underpass.yaml"
    file.write_text(f"mappings: [{{name: {name}, protocol: tcp, target: {target}}}]")
    try:
        page.goto(f"{world.gateway.url}/tunnels")
        expect(row(page, name)).to_be_visible(timeout=20_000)
        made = stored(world, name)[0]
        badge = row(page, name).get_by_test_id("mapping-declared")
        expect(badge).to_have_attribute("title", re.compile(f"underpass.yaml of {BOX}"))
        row(page, name).get_by_role("link", name=name).click()
        expect(page.get_by_test_id("mapping-declared")).to_have_text("Declared")
        by = page.get_by_test_id("mapping-declared-by")
        expect(by).to_contain_text(f"Declared by the underpass.yaml of {BOX}: change")
        for button in ("Edit", "Delete"):
            expect(page.get_by_role("button", name=button)).to_have_count(0)
        page.get_by_role("button", name="Disable").click()
        expect(page.get_by_test_id("mapping-status")).to_have_text("Disabled")
        assert refused(made["public_port"])
        by.get_by_role("link", name=BOX).click()
        section = page.get_by_role("region", name="Tunnels")
        expect(section.get_by_role("link", name=name)).to_be_visible()
        let_declare(page, world, allowed=False)
        expect(section.get_by_role("link", name=name)).to_have_count(0)
        assert not stored(world, name)
    finally:
        file.unlink()


def test_a_join_command_can_let_its_machines_declare(page: Page, world: World) -> None:
    page.get_by_role("navigation").get_by_role("link", name="Machines").click()
    for declares in (False, True):
        page.get_by_role("button", name="Add a machine").click()
        dialog = page.get_by_role("dialog", name="Add a machine")
        if declares:
            dialog.get_by_role("switch", name="They may declare tunnels").check()
        dialog.get_by_role("button", name="Create join command").click()
        expect(dialog.locator("code")).to_contain_text("underpass agent")
        newest = world.admin.get("/api/v1/join-tokens").json()["data"]["items"][0]
        assert newest["may_declare"] is declares
        dialog.get_by_role("button", name="Done").click()
        expect(dialog).to_have_count(0, timeout=15_000)


def test_a_target_that_is_down_says_why_until_it_is_back(
    visit: Visit, world: World, target: int
) -> None:
    group, well, ill = unique("group"), unique("well"), unique("ill")
    port = free_port()
    check = {"type": "tcp", "interval": 1, "fall": 2, "rise": 1}
    port_at_gateway = None
    for name, machine, to in ((well, BOX, target), (ill, CRATE, port)):
        fields = {"group": group, "health": check}
        if port_at_gateway:
            fields["source"] = {"port": port_at_gateway}
        made = make(world.admin, world.machine(machine)["id"], name=name, target_port=to, **fields)
        port_at_gateway = made["public_port"]
    page = visit().page("/tunnels")
    up, down = (row(page, name).get_by_test_id("mapping-health") for name in (well, ill))
    expect(up).to_have_text("Up")
    expect(down).to_have_text("Down", timeout=20_000)
    reason = stored(world, ill)[0]["health_status"]["reason"]
    assert reason
    expect(row(page, ill)).to_contain_text(reason)
    expect(row(page, well)).not_to_contain_text(reason)
    row(page, ill).get_by_role("link", name=ill, exact=True).click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text(reason)
    expect(alert).to_contain_text(f"New connections go to the others of the group {group}")
    expect(page.get_by_role("row").filter(has_text="Health check")).to_contain_text(
        "A connection every 1s; failures until it is down: 2, successes until it is up: 1"
    )
    expect(page.get_by_role("row").filter(has_text="Group")).to_contain_text("taking turns")
    with socket.create_server(("127.0.0.1", port)):
        expect(page.get_by_test_id("mapping-health")).to_have_text("Up", timeout=20_000)
        expect(alert).to_have_count(0)
    page.get_by_role("button", name="Disable").click()
    expect(page.get_by_test_id("mapping-status")).to_have_text("Disabled")
    expect(page.get_by_test_id("mapping-health")).to_have_count(0)
