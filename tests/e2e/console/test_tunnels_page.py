"""Tunnels: made in the dialog, seen to carry bytes, limited, switched off and on, deleted."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.e2e.console.world import BOX, CRATE, Visitor, World
from tests.e2e.programs import eventually, unique
from tests.e2e.tunnelled import connect, echo, ended, tcp_server
from tests.e2e.tunnelled import make as make_mapping

Visit = Callable[..., Visitor]
ROUTE = "/api/v1/mappings"


@pytest.fixture(scope="module")
def target() -> Iterator[int]:
    """A port whose server sends everything back."""
    with tcp_server(echo) as port:
        yield port


@pytest.fixture
def tunnels(page: Page) -> Page:
    """The page of tunnels."""
    page.get_by_role("navigation").get_by_role("link", name="Tunnels").click()
    expect(page.get_by_role("heading", level=1, name="Tunnels")).to_be_visible()
    return page


def make(world: World, name: str, port: int, machine: str = BOX) -> dict[str, Any]:
    """A TCP mapping of the admin's, past the page."""
    return make_mapping(world.admin, world.machine(machine)["id"], name=name, target_port=port)


def stored(world: World, name: str) -> dict[str, Any]:
    items = world.admin.get(ROUTE, params={"q": name}).json()["data"]["items"]
    return next(dict(one) for one in items if one["name"] == name)


def row(page: Page, name: str) -> Locator:
    link = page.get_by_role("link", name=name, exact=True)
    return page.get_by_test_id("mapping").filter(has=link)


def fill_in(page: Page, **fields: str) -> Locator:
    """Open the dialog for a new tunnel and fill in *fields*, by their labels (_ for a space)."""
    page.get_by_role("button", name="New tunnel").first.click()
    dialog = page.get_by_role("dialog", name="New tunnel")
    for label, value in fields.items():
        if label == "Machine":
            dialog.get_by_role("combobox", name="Machine").click()
            page.get_by_role("option", name=value, exact=True).click()
        else:
            dialog.get_by_label(label.replace("_", " "), exact=True).fill(value)
    return dialog


def refused(port: int) -> bool:
    """Whether nobody listens on *port* of the gateway."""
    try:
        connect(port).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_tunnel_from_its_making_to_its_end(tunnels: Page, world: World, target: int) -> None:
    page, name = tunnels, unique("walk")
    dialog = fill_in(page, Machine=BOX, Target_port=str(target), Name=name)
    dialog.get_by_role("button", name="Create tunnel").click()
    expect(page.get_by_role("heading", level=1, name=name)).to_be_visible()
    expect(page.get_by_test_id("mapping-status")).to_have_text("Active")
    port = int(stored(world, name)["public_port"])
    expect(page.get_by_text(f":{port}", exact=False).first).to_be_visible()

    open_now = page.locator("[data-figure=open]")
    with connect(port) as client:
        client.sendall(b"x" * 100_000)
        assert len(receive(client, 100_000)) == 100_000
        expect(open_now).to_have_text("1", timeout=10_000)
        expect(page.locator("[data-figure=connections]")).to_have_text("1")
        expect(page.locator("[data-figure=sent]")).to_have_text("97.7 KiB")
        expect(page.locator("[data-figure=received]")).to_have_text("97.7 KiB")
        expect(page.get_by_role("figure")).to_have_count(2)  # a chart for each direction

        # The table, with a second connection and bytes that keep coming.
        page.get_by_role("navigation").get_by_role("link", name="Tunnels").click()
        line = row(page, name)
        expect(line.get_by_test_id("mapping-totals")).to_contain_text("Connections: 1")
        with connect(port) as second:
            expect(line.get_by_test_id("mapping-open")).to_have_text("2", timeout=10_000)
            rate = line.get_by_test_id("mapping-rate")

            def moving() -> bool:
                second.sendall(b"y" * 50_000)
                receive(second, 50_000)
                return "KiB/s" in rate.inner_text()

            eventually(moving, 15, "a rate in the table")
        expect(line.get_by_test_id("mapping-open")).to_have_text("1", timeout=10_000)

        # A limit, changed while the first connection is open, which stays.
        line.get_by_role("link", name=name).click()
        page.get_by_role("button", name="Edit").click()
        edit = page.get_by_role("dialog")
        edit.get_by_label("Connection limit").fill("1")
        edit.get_by_label("Bandwidth limit").fill("20")
        edit.get_by_role("button", name="Save").click()
        expect(edit).to_have_count(0)
        expect(page.get_by_text("20.0 KiB/s", exact=True)).to_be_visible()
        assert stored(world, name)["limits"] == {
            "bandwidth": 20 * 1024,
            "connections": 1,
            "burst": None,
        }
        with connect(port) as third:
            assert ended(third)  # over the limit: accepted, and closed without a byte
        started = time.monotonic()
        client.sendall(b"z" * 60_000)
        assert len(receive(client, 60_000)) == 60_000
        assert time.monotonic() - started > 1  # a burst of half a second, then 20 KiB a second

        page.get_by_role("button", name="Disable").click()
        expect(page.get_by_test_id("mapping-status")).to_have_text("Disabled")
        expect(open_now).to_have_text("0", timeout=15_000)
        assert ended(client)
    assert refused(port)

    page.get_by_role("button", name="Enable").click()
    expect(page.get_by_test_id("mapping-status")).to_have_text("Active")
    assert int(stored(world, name)["public_port"]) == port  # the same: its lease was kept
    with connect(port) as client:
        client.sendall(b"again")
        assert receive(client, 5) == b"again"

    page.get_by_role("button", name="Delete").click()
    sure = page.get_by_role("dialog", name=f"Delete {name}?")
    sure.get_by_role("button", name="Cancel").click()
    expect(sure).to_have_count(0)
    page.get_by_role("button", name="Delete").click()
    sure.get_by_role("button", name="Delete").click()
    expect(page.get_by_text(f"{name} deleted")).to_be_visible()
    expect(page.get_by_role("heading", level=1, name="Tunnels")).to_be_visible()
    expect(row(page, name)).to_have_count(0)
    assert refused(port)


def receive(client: socket.socket, count: int) -> bytes:
    """Exactly *count* bytes, or fewer at the end."""
    client.settimeout(20)
    found = bytearray()
    while len(found) < count and (chunk := client.recv(count - len(found))):
        found += chunk
    return bytes(found)


def test_what_is_wrong_is_said_at_its_field_until_it_is_changed(
    tunnels: Page, world: World, target: int
) -> None:
    page, taken = tunnels, unique("taken")
    port = make(world, taken, target)["public_port"]
    dialog = fill_in(page)
    create = dialog.get_by_role("button", name="Create tunnel")
    create.click()
    expect(dialog.get_by_text("This is needed.")).to_have_count(2)
    dialog.get_by_role("combobox", name="Machine").click()
    page.get_by_role("option", name=BOX, exact=True).click()
    dialog.get_by_label("Target port").fill("22")
    expect(dialog.get_by_text("This is needed.")).to_have_count(0)
    listen = dialog.get_by_label("Port on the gateway")
    for wrong, complaint in (
        (str(port), re.compile("in use|leased|taken|belongs", re.IGNORECASE)),
        (str(world.gateway.port), re.compile("not among the ports|own port")),
        ("9-7", re.compile("A-B")),
        ("many", re.compile("number|integer", re.IGNORECASE)),
    ):
        listen.fill(wrong)
        create.click()
        expect(listen).to_have_attribute("aria-invalid", "true")
        error = dialog.locator(".mantine-InputWrapper-error")
        expect(error).to_have_count(1)
        expect(error).to_have_text(complaint)
    listen.fill("")
    expect(dialog.locator(".mantine-InputWrapper-error")).to_have_count(0)
    # A field that is folded away comes out when it is wrong.
    more = dialog.get_by_role("button", name="More options")
    expect(more).to_have_attribute("aria-expanded", "false")
    more.click()
    dialog.get_by_label("Only from").fill("300.1.2.3")
    dialog.get_by_label("Only from").press("Enter")
    more.click()
    expect(more).to_have_attribute("aria-expanded", "false")
    create.click()
    expect(more).to_have_attribute("aria-expanded", "true")
    expect(dialog.get_by_text("Must be a network such as 192.0.2.0/24")).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)


def test_every_protocol_can_be_made(tunnels: Page, world: World) -> None:
    page = tunnels
    name = unique("socks")
    dialog = fill_in(page, Machine=CRATE, Name=name)
    dialog.get_by_text("SOCKS5", exact=True).click()
    expect(dialog.get_by_label("Target port")).to_have_count(0)
    dialog.get_by_label("User name").fill("ann")
    dialog.get_by_label("Password", exact=True).fill("a fine secret")
    dialog.get_by_role("button", name="Create tunnel").click()
    expect(page.get_by_role("heading", level=1, name=name)).to_be_visible()
    made = stored(world, name)
    assert (made["protocol"], made["options"]["username"]) == ("socks5", "ann")
    expect(page.get_by_text("whatever clients ask for")).to_be_visible()

    page.get_by_role("navigation").get_by_role("link", name="Tunnels").click()
    name = unique("dns")
    dialog = fill_in(page, Machine=CRATE, Name=name, Target_port="53")
    dialog.get_by_text("UDP", exact=True).click()
    dialog.get_by_role("button", name="More options").click()
    dialog.get_by_label("Never from").fill("198.51.100.7")
    dialog.get_by_label("Never from").press("Enter")
    dialog.get_by_role("combobox", name="Compression").click()
    page.get_by_role("option", name="lz4").click()
    dialog.get_by_role("button", name="Create tunnel").click()
    expect(page.get_by_role("heading", level=1, name=name)).to_be_visible()
    expect(page.get_by_text("198.51.100.7/32")).to_be_visible()
    expect(page.get_by_text("Datagrams dropped")).to_be_visible()
    made = stored(world, name)
    assert (made["protocol"], made["options"]["compression"]) == ("udp", "lz4")

    page.get_by_role("navigation").get_by_role("link", name="Tunnels").click()
    name = unique("unix")
    dialog = fill_in(page, Machine=CRATE, Name=name)
    dialog.get_by_text("Unix socket", exact=True).click()
    dialog.get_by_label("Path of the socket").fill("/run/app.sock")
    dialog.get_by_role("button", name="Create tunnel").click()
    expect(page.get_by_role("heading", level=1, name=name)).to_be_visible()
    assert stored(world, name)["target_path"] == "/run/app.sock"


def test_the_table_is_filtered_and_follows_what_others_do(
    tunnels: Page, world: World, target: int
) -> None:
    page, one, two = tunnels, unique("follow-a"), unique("follow-b")
    made = make(world, one, target)
    other = make(world, two, target, CRATE)
    expect(row(page, one)).to_be_visible()  # by itself: nobody reloads
    expect(row(page, two)).to_contain_text(CRATE)
    page.get_by_label("Filter by name or target").fill(one)
    expect(row(page, two)).to_have_count(0)
    expect(row(page, one)).to_be_visible()
    expect(page).to_have_url(re.compile(f"q={one}"))
    page.get_by_role("button", name="Clear").click()
    page.get_by_text("Disabled", exact=True).click()
    expect(row(page, one)).to_have_count(0)
    world.admin.patch(f"{ROUTE}/{made['id']}", json={"status": "disabled"})
    expect(row(page, one)).to_have_attribute("data-status", "disabled")
    page.reload()  # the filter is in the address
    expect(row(page, one)).to_be_visible()
    expect(row(page, two)).to_have_count(0)
    page.get_by_text("All", exact=True).click()
    expect(row(page, two)).to_be_visible()
    world.admin.delete(f"{ROUTE}/{other['id']}")
    expect(row(page, two)).to_have_count(0)
    page.get_by_label("Filter by name or target").fill("no-such-tunnel")
    expect(page.get_by_text("No tunnel matches")).to_be_visible()


def test_a_machine_shows_its_tunnels_and_the_palette_finds_them(
    page: Page, world: World, target: int
) -> None:
    name = unique("here")
    make(world, name, target, CRATE)
    page.goto(f"{world.gateway.url}/machines/{world.machine(CRATE)['id']}")
    section = page.get_by_role("region", name="Tunnels")
    expect(section.get_by_role("link", name=name)).to_be_visible()
    section.get_by_role("button", name="New tunnel").click()
    dialog = page.get_by_role("dialog", name="New tunnel")
    expect(dialog.get_by_role("combobox", name="Machine")).to_have_value(CRATE)
    page.keyboard.press("Escape")
    page.goto(f"{world.gateway.url}/machines/{world.machine(BOX)['id']}")
    expect(section.get_by_role("button", name="New tunnel")).to_be_visible()
    expect(section.get_by_role("link", name=name)).to_have_count(0)
    page.keyboard.press("Control+k")
    page.get_by_role("textbox", name="Go to a machine or page…").fill(name)
    page.get_by_role("button", name=name).click()
    expect(page.get_by_role("heading", level=1, name=name)).to_be_visible()


def test_a_user_sees_their_own_tunnels_and_an_auditor_changes_none(
    visit: Visit, world: World, target: int
) -> None:
    admins = unique("admins")
    made = make(world, admins, target)
    user = world.person("user", BOX)
    page = visit(user).page("/tunnels")
    expect(page.get_by_text("No tunnels yet")).to_be_visible()
    expect(page.get_by_text("underpass expose tcp 22")).to_be_visible()
    name = unique("mine")
    dialog = fill_in(page, Machine=BOX, Target_port=str(target), Name=name)
    dialog.get_by_role("button", name="Create tunnel").click()
    expect(page.get_by_role("heading", level=1, name=name)).to_be_visible()
    page.get_by_role("navigation").get_by_role("link", name="Tunnels").click()
    expect(row(page, name)).to_be_visible()
    expect(page.get_by_test_id("mapping")).to_have_count(1)
    page.goto(f"{world.gateway.url}/tunnels/{made['id']}")
    expect(page.get_by_text("This could not be loaded")).to_be_visible()
    expect(page.get_by_text(admins)).to_have_count(0)
    page.goto(f"{world.gateway.url}/machines/{world.machine(BOX)['id']}")
    section = page.get_by_role("region", name="Tunnels")
    expect(section.get_by_role("link", name=name)).to_be_visible()
    expect(section.get_by_text(admins)).to_have_count(0)

    auditor = visit(world.person("auditor")).page(f"/tunnels/{made['id']}")
    expect(auditor.get_by_role("heading", level=1, name=admins)).to_be_visible()
    expect(auditor.get_by_text("Public address")).to_be_visible()
    for button in ("Edit", "Disable", "Delete"):
        expect(auditor.get_by_role("button", name=button)).to_have_count(0)
