"""Settings: one's own password and keys, and, for an admin, everybody's account."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.e2e.browser import sign_in
from tests.e2e.console.world import BOX, Visitor, World
from tests.e2e.programs import PASSWORD, eventually, unique

Visit = Callable[..., Visitor]
FRESH = "a new sentence to sign in with"


def test_a_password_is_changed_and_the_new_one_works(visit: Visit, world: World) -> None:
    user = world.person("user")
    page = visit(user).page("/settings")

    def change(old: str, new: str, again: str) -> None:
        page.get_by_label("Present password").fill(old)
        page.get_by_label("New password").fill(new)
        page.get_by_label("Password again").fill(again)
        page.get_by_role("button", name="Change password").click()

    change(PASSWORD, "short", "short")
    expect(page.get_by_role("alert")).to_contain_text("at least")
    change(PASSWORD, FRESH, FRESH + "!")
    expect(page.get_by_role("alert")).to_contain_text("differ")
    change("not my password", FRESH, FRESH)
    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.get_by_role("alert")).not_to_contain_text("differ")
    change(PASSWORD, FRESH, FRESH)
    expect(page.get_by_text("Password changed")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="Settings")).to_be_visible()  # still signed in here
    world.gateway.login(user, FRESH)
    other = visit(None).page("/")
    other.get_by_label("User name").fill(user)
    other.get_by_label("Password", exact=True).fill(PASSWORD)
    other.keyboard.press("Enter")
    expect(other.get_by_role("alert")).to_be_visible()


def test_an_api_key_is_made_used_and_revoked(page: Page, world: World) -> None:
    name = unique("key")
    page.get_by_role("link", name="Settings").first.click()
    page.get_by_role("button", name="Create a key").click()
    dialog = page.get_by_role("dialog", name="Create a key")
    dialog.get_by_label("Name").fill(name)
    dialog.get_by_role("button", name="Create a key").click()
    expect(dialog).to_contain_text("only time")
    key = dialog.locator("code").inner_text()
    assert key.startswith("upt_")
    client = world.gateway.client(key)
    assert client.get("/api/v1/assets").status_code == 200
    dialog.get_by_role("button", name="Done").click()
    row = page.get_by_role("table", name="API keys").get_by_role("row").filter(has_text=name)
    expect(row).to_be_visible()
    assert key not in page.content()
    row.get_by_role("button", name="Revoke").click()
    confirm = page.get_by_role("dialog", name=f"Revoke {name}?")
    confirm.get_by_role("button", name="Revoke").click()
    expect(row).to_have_count(0)
    eventually(lambda: client.get("/api/v1/assets").status_code == 401, 5, "the key being refused")


def test_a_user_is_added_and_disabled(page: Page, visit: Visit, world: World) -> None:
    name = unique("person")
    page.get_by_role("link", name="Settings").first.click()
    page.get_by_role("button", name="Add a user").click()
    dialog = page.get_by_role("dialog", name="Add a user")
    dialog.get_by_label("User name").fill(name)
    dialog.get_by_label("Password", exact=True).fill("short")
    dialog.get_by_role("button", name="Add a user").click()
    expect(dialog.get_by_role("alert")).to_contain_text("at least")
    dialog.get_by_label("Password", exact=True).fill(PASSWORD)
    dialog.get_by_role("combobox", name="Role").click()
    page.get_by_role("option", name="Auditor").click()
    dialog.get_by_role("button", name="Add a user").click()
    expect(page.get_by_text(f"{name} can sign in now")).to_be_visible()
    row = page.get_by_role("table", name="Users").get_by_role("row").filter(has_text=name)
    theirs = visit(None).page("/")
    sign_in(theirs, world.gateway, name)
    expect(theirs.get_by_role("link", name="Audit")).to_be_visible()
    theirs.get_by_role("link", name="Machines").first.click()
    expect(theirs.get_by_role("link", name=BOX, exact=True)).to_be_visible()
    expect(theirs.get_by_role("button", name="Add a machine")).to_have_count(0)
    row.get_by_role("button", name="Disable").click()
    expect(row).to_contain_text("disabled")
    theirs.reload()
    expect(theirs.get_by_role("button", name="Sign in")).to_be_visible()
    row.get_by_role("button", name="Enable").click()
    expect(row.get_by_role("button", name="Disable")).to_be_visible()
    assert world.gateway.login(name).get("/api/v1/auth/me").status_code == 200


def test_a_role_is_changed(page: Page, world: World) -> None:
    name = world.person("user")
    page.get_by_role("link", name="Settings").first.click()
    page.get_by_role("combobox", name=f"Role of {name}").click()
    page.get_by_role("option", name="Auditor").click()
    expect(page.get_by_text("Saved")).to_be_visible()
    assert world.gateway.login(name).get("/api/v1/events").status_code == 200


def test_a_user_sees_no_other_accounts(visit: Visit, world: World) -> None:
    page = visit(world.person("user")).page("/settings")
    expect(page.get_by_role("heading", name="Your password")).to_be_visible()
    expect(page.get_by_role("heading", name="API keys")).to_be_visible()
    expect(page.get_by_role("heading", name="Users")).to_have_count(0)
