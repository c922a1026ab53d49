"""Quotas: what a person may use and has used, told to them and set by an admin."""

from __future__ import annotations

import socket
from collections.abc import Callable

from playwright.sync_api import Locator, Page, expect

from tests.e2e.console.world import BOX, Visitor, World
from tests.e2e.tunnelled import connect, ended, make, tcp_server

Visit = Callable[..., Visitor]


def id_of(world: World, name: str) -> str:
    users = world.admin.get("/api/v1/users", params={"page_size": 200}).json()["data"]["items"]
    return next(str(user["id"]) for user in users if user["username"] == name)


def open_quota(page: Page, world: World, name: str) -> Locator:
    page.goto(f"{world.gateway.url}/settings")
    page.get_by_role("button", name=f"Quota of {name}").click()
    return page.get_by_role("dialog", name=f"Quota of {name}")


def limit(place: Page | Locator, name: str) -> Locator:
    return place.locator(f"[data-limit={name}]")


def swallow(sock: socket.socket) -> None:
    while sock.recv(65_536):
        pass


def test_limits_are_set_felt_and_taken_away(page: Page, visit: Visit, world: World) -> None:
    user = world.person("user", BOX)
    theirs = world.gateway.login(user)
    dialog = open_quota(page, world, user)
    expect(limit(dialog, "monthly_traffic")).to_contain_text("0 B, no limit")
    dialog.get_by_label("Traffic this month", exact=True).fill("1")
    dialog.get_by_role("combobox", name="Unit of: Traffic this month").click()
    page.get_by_role("option", name="MB", exact=True).click()
    dialog.get_by_label("Mappings", exact=True).fill("1")
    dialog.get_by_label("Bandwidth, each way", exact=True).fill("50")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_have_count(0)
    quota = theirs.get(f"/api/v1/users/{id_of(world, user)}/quota").json()["data"]
    assert (quota["monthly_traffic"], quota["max_mappings"]) == (1_000_000, 1)
    assert (quota["bandwidth"], quota["max_sessions"]) == (50_000_000, None)

    # What the person sees, while the first megabyte is used up.
    me = visit(user).page("/tunnels")
    bars = me.get_by_test_id("tunnel-quota")
    expect(limit(bars, "monthly_traffic")).to_contain_text("0 B of 1 MB")
    expect(limit(bars, "max_mappings")).to_contain_text("0 of 1")
    with tcp_server(swallow) as port:
        made = make(theirs, world.machine(BOX)["id"], target_port=port)
        with connect(made["public_port"]) as client:
            client.sendall(b"x" * 850_000)
            traffic = limit(bars, "monthly_traffic")
            expect(traffic).to_contain_text("850 kB of 1 MB", timeout=25_000)
            expect(traffic.get_by_role("img", name="Traffic this month 85 %")).to_be_visible()
            expect(limit(bars, "max_mappings")).to_contain_text("1 of 1")
            client.sendall(b"x" * 400_000)
            assert ended(client)
    # One more is refused, and the page says why and what next.
    me.get_by_role("button", name="New tunnel").first.click()
    form = me.get_by_role("dialog", name="New tunnel")
    form.get_by_role("combobox", name="Machine").click()
    me.get_by_role("option", name=BOX, exact=True).click()
    form.get_by_label("Target port").fill("22")
    form.get_by_role("button", name="Create tunnel").click()
    expect(form.get_by_role("alert")).to_contain_text("The quota allows 1 mappings")
    expect(form.get_by_role("alert")).to_contain_text("ask an admin")
    me.keyboard.press("Escape")
    me.get_by_role("button", name="Account").click()
    me.get_by_role("menuitem", name="What you may use").click()
    section = me.get_by_role("region", name="What you may use")
    expect(section).to_be_in_viewport()
    expect(limit(section, "max_sessions")).to_contain_text("0, no limit")
    expect(limit(section, "bandwidth")).to_contain_text("50 MB/s")
    expect(section).to_contain_text("an admin can raise it")
    expect(me.get_by_role("button", name="Quota of")).to_have_count(0)

    dialog = open_quota(page, world, user)
    dialog.get_by_role("button", name="No limits").click()
    expect(dialog).to_have_count(0)
    quota = theirs.get(f"/api/v1/users/{id_of(world, user)}/quota").json()["data"]
    assert (quota["monthly_traffic"], quota["max_mappings"], quota["bandwidth"]) == (None,) * 3
    me.goto(f"{world.gateway.url}/tunnels")
    expect(me.get_by_test_id("mapping")).to_have_count(1)
    expect(bars).to_have_count(0)


def test_a_wrong_limit_is_said_at_its_field(page: Page, world: World) -> None:
    user = world.person("user")
    dialog = open_quota(page, world, user)
    bandwidth = dialog.get_by_label("Bandwidth, each way", exact=True)
    bandwidth.fill("1")
    dialog.get_by_role("combobox", name="Unit of: Bandwidth, each way").click()
    page.get_by_role("option", name="B/s", exact=True).click()
    dialog.get_by_role("button", name="Save").click()
    expect(bandwidth).to_have_attribute("aria-invalid", "true")
    expect(dialog).to_contain_text("must be a whole number from 1024")
    bandwidth.fill("2000")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_have_count(0)


def test_an_auditor_looks_and_changes_nothing(visit: Visit, world: World) -> None:
    user = world.person("user")
    page = visit(world.person("auditor")).page("/settings")
    dialog = open_quota(page, world, user)
    expect(limit(dialog, "max_mappings")).to_contain_text("0, no limit")
    expect(dialog.get_by_role("textbox")).to_have_count(0)
    expect(dialog.get_by_role("button", name="Save")).to_have_count(0)
