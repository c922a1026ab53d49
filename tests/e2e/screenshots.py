"""Pictures of every page of the console, from a gateway with real agents: ``make screenshots``.

What is on the pictures happened.
Writes ``screenshots/<page>-<light|dark>.png``; with ``--docs`` also the few that the documentation
shows, to ``docs/images``.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from tests.e2e.browser import chromium
from tests.e2e.console.panes import Pane, open_shell
from tests.e2e.console.world import Visitor, World
from tests.e2e.programs import AgentProgram, eventually
from tests.e2e.terminal import Terminal
from tests.e2e.tunnelled import connect, echo, make, tcp_server

ROOT = Path(__file__).parents[2]
MACHINES = {
    "web-1": {"env": "prod", "role": "web"},
    "db-1": {"env": "prod", "role": "database"},
    "build-3": {"env": "dev", "role": "build"},
}
FOR_DOCS = {
    "terminal-split-dark": "console",
    "machines-light": "machines",
    "recording-light": "recording",
}
LARGEST = 200_000  # bytes; a page of documentation has to load quickly
PHONE = {"viewport": {"width": 390, "height": 780}, "has_touch": True, "is_mobile": True}
_PROMPT = "PS1='\\[\\e[32m\\]admin@{name}\\[\\e[0m\\]:\\[\\e[34m\\]~\\[\\e[0m\\]$ '; clear"
_SHOWN = {
    "web-1": "df -h /; echo; uptime -p; echo; head -3 /etc/os-release",
    "db-1": "ls --color /usr; echo; uname -srm; echo; nproc",
}


def record_session(world: World, machine: str) -> str:
    """A short session that is over; the id of its recording."""
    terminal = Terminal.open(world.admin, world.machine(machine)["id"])
    terminal.until(r"[$#] ")
    terminal.control("resize", cols=84, rows=24)
    terminal.type(_PROMPT.format(name=machine) + "\n")
    prompt = rf"admin@{machine}:~\$ "
    lines = ("uptime", "ls --color /usr", "df -h /", "head -3 /etc/os-release")
    for shown, line in enumerate(lines, 1):
        terminal.until(rf"(?s)(?:{prompt}.*){{{shown}}}")
        time.sleep(0.7)  # as a person would, so that the player has something to play
        terminal.type(f"{line}\n")
    terminal.until(rf"(?s)(?:{prompt}.*){{{len(lines) + 1}}}")
    terminal.type("exit\n")
    terminal.until_control("exit")

    def finished() -> str | None:
        items = world.admin.get("/api/v1/recordings").json()["data"]["items"]
        return next((str(one["id"]) for one in items if one["status"] == "finished"), None)

    return str(eventually(finished, 10, "a finished recording"))


class Camera:
    """Takes the pictures of one colour scheme."""

    def __init__(self, world: World, browser: Browser, scheme: str, directory: Path) -> None:
        self.world = world
        self.scheme = scheme
        self.directory = directory
        self.visitor = Visitor(world, browser, "root-admin", color_scheme=scheme)
        self.page = self.visitor.page()
        expect(self.page.get_by_role("navigation")).to_be_visible()

    def take(self, name: str, page: Page | None = None) -> None:
        page = page or self.page
        page.mouse.move(0, 0)
        page.evaluate("document.fonts.ready")
        page.wait_for_timeout(700)  # charts, bars and fading dialogs come to rest
        path = self.directory / f"{name}-{self.scheme}.png"
        page.screenshot(path=path)
        print(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)

    def go(self, name: str) -> None:
        self.page.get_by_role("navigation").get_by_role("link", name=name).click()
        expect(self.page.get_by_role("heading", level=1, name=name)).to_be_visible()

    def end(self) -> None:
        """Nothing of this scheme is to be seen in the next one's pictures."""
        self.visitor.close()
        for session in self.world.admin.get("/api/v1/sessions").json()["data"]["items"]:
            if session["status"] in ("active", "detached"):
                self.world.admin.delete(f"/api/v1/sessions/{session['id']}")

    def shell(self, pane: Pane, name: str) -> None:
        pane.line(_PROMPT.format(name=name))
        pane.wait(rf"^admin@{name}:~\$ ?$")
        pane.line(_SHOWN[name])
        pane.wait(rf"\nadmin@{name}:~\$ ?$")


def terminals(camera: Camera) -> None:
    page = camera.page
    camera.page.goto(f"{camera.world.gateway.url}/terminal")
    expect(page.get_by_text("No terminal open")).to_be_visible()
    camera.take("terminal-empty")
    web = open_shell(page, "web-1")
    camera.shell(web, "web-1")
    camera.take("terminal")
    web.section.get_by_role("button", name="Split right").click()
    camera.take("terminal-split-menu")
    page.get_by_role("menuitem", name="db-1").click()
    database = Pane(page, "db-1").ready()
    camera.shell(database, "db-1")
    expect(database.section.get_by_test_id("terminal-rtt")).to_have_text(re.compile("ms"))
    camera.take("terminal-split")
    page.keyboard.press("Control+Shift+F")
    database.section.get_by_role("textbox", name="Find in the terminal").fill("lib")
    expect(database.section.get_by_role("search").get_by_role("status")).to_contain_text("/")
    camera.take("terminal-search")
    page.keyboard.press("Escape")
    database.section.get_by_role("button", name="Terminal settings").click()
    camera.take("terminal-settings")
    page.keyboard.press("Escape")
    database.section.get_by_role("button", name="Close", exact=True).click()
    camera.take("terminal-closing")
    page.get_by_role("button", name="End the shell").click()
    expect(database.section).to_have_count(0)


def pages(camera: Camera, recording: str) -> None:
    page = camera.page
    for name in ("Overview", "Machines", "Sessions", "Recordings", "Audit", "Settings"):
        camera.go(name)
        expect(page.get_by_role("row").nth(1)).to_be_visible()
        camera.take(name.lower())
    camera.go("Sessions")
    page.get_by_text("Finished", exact=True).click()
    camera.take("sessions-finished")
    camera.go("Machines")
    page.get_by_role("button", name="Add a machine").click()
    camera.take("add-machine")
    page.get_by_role("button", name="Create join command").click()
    expect(page.get_by_role("dialog").locator("code")).to_be_visible()
    camera.take("join-command")
    page.get_by_role("button", name="Done").click()
    page.get_by_label("Filter: text, or env=prod").fill("nothing like it")
    camera.take("machines-no-match")
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("link", name="web-1", exact=True).click()
    expect(page.get_by_role("figure").first).to_be_visible()
    page.wait_for_timeout(6000)  # three live points
    camera.take("machine")
    page.get_by_role("button", name="Edit").click()
    camera.take("machine-edit")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("Control+k")
    page.get_by_role("textbox", name="Go to a machine or page…").fill("db")
    camera.take("palette")
    page.keyboard.press("Escape")
    page.goto(f"{camera.world.gateway.url}/recordings/{recording}")
    expect(page.get_by_test_id("player").locator(".ap-player")).to_be_visible(timeout=20_000)
    page.get_by_label("Search in this recording").fill("Mounted on")
    page.get_by_role("button", name=re.compile("Mounted on")).first.click()
    expect(page.get_by_test_id("player")).to_contain_text("Mounted on")
    camera.take("recording")
    camera.go("Recordings")
    page.get_by_label("Search what was on screen").fill("load average")
    expect(page.locator("tr.hits").first).to_be_visible()
    camera.take("recordings-hits")


def tunnels(camera: Camera, port: int) -> None:
    """With a connection that has bytes passing all the time; *port* sends everything back."""
    page = camera.page
    with connect(port) as client, ThreadPoolExecutor(1) as pool:
        over = threading.Event()

        def talk() -> None:
            while not over.wait(0.1):
                client.sendall(b"x" * 20_000)
                received = 0
                while received < 20_000:
                    received += len(client.recv(65_536))

        talking = pool.submit(talk)
        try:
            camera.go("Tunnels")
            expect(page.get_by_test_id("mapping-rate").filter(has_text="KiB/s")).to_be_visible()
            camera.take("tunnels")
            page.get_by_role("button", name="New tunnel").click()
            camera.take("tunnel-new")
            page.get_by_role("button", name="More options").click()
            camera.take("tunnel-new-more")
            page.keyboard.press("Escape")
            page.get_by_role("link", name="web-1-app", exact=True).click()
            page.wait_for_timeout(8000)  # four points
            camera.take("tunnel")
        finally:
            over.set()
            talking.result(30)


def make_tunnels(world: World, echo_port: int) -> int:
    """A few mappings; the port of one that leads to *echo_port*."""
    web, database = (world.machine(name)["id"] for name in ("web-1", "db-1"))
    limits = {"bandwidth": 1024**2, "connections": 20}
    options = {"allow_ips": ["127.0.0.0/8", "192.0.2.0/24"], "compression": "adaptive"}
    app = make(
        world.admin, web, name="web-1-app", target_port=echo_port, limits=limits, options=options
    )
    make(world.admin, database, name="dns", protocol="udp", target_port=53)
    login = {"username": "ann", "password": "correct horse battery"}
    make(world.admin, web, name="office-proxy", protocol="socks5", options=login)
    make(world.admin, web, name="docker", protocol="unix", target_path="/run/docker.sock")
    off = make(world.admin, database, name="postgres", target_port=5432)
    world.admin.patch(f"/api/v1/mappings/{off['id']}", json={"status": "disabled"})
    return int(app["public_port"])


def strangers(camera: Camera, browser: Browser) -> None:
    """What somebody sees who is not signed in, has nothing yet, or holds a phone."""
    stranger = Visitor(camera.world, browser, None, color_scheme=camera.scheme)
    page = stranger.page()
    expect(page.get_by_label("User name")).to_be_visible()
    camera.take("sign-in", page)
    stranger.close()
    newcomer = Visitor(camera.world, browser, "newcomer", color_scheme=camera.scheme)
    for name in ("overview", "machines", "sessions", "recordings", "tunnels"):
        page = newcomer.page("/" if name == "overview" else f"/{name}")
        expect(page.get_by_role("navigation")).to_be_visible()
        camera.take(f"newcomer-{name}", page)
    newcomer.close()
    phone = Visitor(camera.world, browser, "root-admin", color_scheme=camera.scheme, **PHONE)
    for name in ("overview", "machines", "sessions", "tunnels", "settings"):
        page = phone.page("/" if name == "overview" else f"/{name}")
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        camera.take(f"phone-{name}", page)
        page.close()
    page = phone.page("/machines")
    page.get_by_role("row").filter(has_text="web-1").get_by_role("button", name="Terminal").tap()
    pane = Pane(page, "web-1").ready()
    camera.shell(pane, "web-1")
    camera.take("phone-terminal", page)
    pane.end()
    phone.close()


def take_all(world: World, out: Path) -> None:
    waiting = AgentProgram(world.directory, world.gateway, "nas")
    world.agents.append(waiting.start())
    world.admin.post(
        "/api/v1/users",
        json={"username": "newcomer", "password": "correct horse battery", "role": "user"},
    )
    world.admin.post("/api/v1/api-keys", json={"name": "nightly backup"})
    recording = record_session(world, "web-1")
    with chromium() as browser, tcp_server(echo) as target:
        port = make_tunnels(world, target)
        for scheme in ("light", "dark"):
            camera = Camera(world, browser, scheme, out)
            terminals(camera)
            pages(camera, recording)
            tunnels(camera, port)
            strangers(camera, browser)
            camera.end()


def copy_to_docs(out: Path, docs: Path) -> None:
    docs.mkdir(parents=True, exist_ok=True)
    for source, name in FOR_DOCS.items():
        picture = (out / f"{source}.png").read_bytes()
        if len(picture) > LARGEST:
            raise SystemExit(f"{source}.png has {len(picture)} bytes, more than {LARGEST}")
        (docs / f"{name}.png").write_bytes(picture)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make screenshots", description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "screenshots")
    parser.add_argument("--docs", action="store_true", help="also renew docs/images")
    chosen = parser.parse_args(arguments)
    if shutil.which("chromium") is None:
        print("screenshots: needs chromium (Debian, Ubuntu: apt-get install chromium)")
        return 2
    chosen.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        world = World(Path(directory), MACHINES)
        try:
            take_all(world.start(*MACHINES), chosen.output)
        finally:
            world.close()
    if chosen.docs:
        copy_to_docs(chosen.output, ROOT / "docs/images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
