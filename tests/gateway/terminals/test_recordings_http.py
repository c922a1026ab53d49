"""Recordings over HTTP: whole, in ranges, live, by text; ids only."""

from __future__ import annotations

import asyncio

import pytest

from tests.gateway.terminals.asgi_socket import Closed
from tests.gateway.terminals.house import House, Machine, Person
from underpass.core.errors import InvalidRequest
from underpass.gateway.http.recordings import byte_range
from underpass.gateway.http.times import seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bytes=0-9", (0, 10)), ("bytes=10-", (10, 100)), ("bytes=-5", (95, 100)),
        ("bytes=0-999", (0, 100)), ("bytes=-999", (0, 100)), ("bytes=100-", None),
        ("bytes=9-5", None), ("bytes=-0", None), ("bytes=-", (0, 100)), ("lines=1-2", (0, 100)),
        ("bytes=0-1,5-6", (0, 100)), ("bytes=-" + "9" * 30, (0, 100)),
    ],
)  # fmt: skip
def test_ranges(text: str, expected: tuple[int, int] | None) -> None:
    assert byte_range(text, 100) == expected


def test_times_in_queries() -> None:
    assert seconds("since", None) is None
    assert seconds("since", "1700000000.5") == 1_700_000_000.5
    assert seconds("since", "2023-11-14T22:13:20Z") == 1_700_000_000
    assert seconds("since", "2023-11-14T23:13:20 01:00") == 1_700_000_000
    assert seconds("since", "2023-11-14T22:13:20") == 1_700_000_000
    for bad in ("yesterday", "nan", "-5", "1e300"):
        with pytest.raises(InvalidRequest):
            seconds("since", bad)


async def recorded(ada: Person, box: Machine, text: str = "echo nee''dle") -> str:
    screen, session_id = await ada.shell(box.id)
    screen.socket.type(f"{text}\nexit\n")
    await screen.end()
    return (await ada.data(f"/api/v1/sessions/{session_id}"))["recording"]


async def test_download_and_ranges(home: House, ada: Person, box: Machine) -> None:
    path = f"/api/v1/recordings/{await recorded(ada, box)}/cast"
    whole = await ada.http.get(path)
    assert whole.status_code == 200
    assert whole.headers["content-type"].startswith("application/x-asciicast")
    assert whole.headers["accept-ranges"] == "bytes"
    part = await ada.http.get(path, headers={"Range": "bytes=10-19"})
    assert part.status_code == 206
    assert part.content == whole.content[10:20]
    assert part.headers["content-range"] == f"bytes 10-19/{len(whole.content)}"
    beyond = await ada.http.get(path, headers={"Range": "bytes=99999999-"})
    assert beyond.status_code == 416
    assert beyond.headers["content-range"] == f"bytes */{len(whole.content)}"
    same = await ada.http.get(path, headers={"If-None-Match": whole.headers["etag"]})
    assert same.status_code == 304
    other = await ada.http.get(path, headers={"Range": "bytes=0-1", "If-Range": '"old"'})
    assert other.status_code == 200
    kept = await ada.http.get(path, params={"download": "true"})
    assert kept.headers["content-disposition"].endswith('.cast"')


@pytest.mark.parametrize("evil", ["..%2f..%2fetc%2fpasswd", "%2e%2e", "%00", "x" * 3000, "a%2f..b"])
async def test_ids_that_are_paths_are_not_found(home: House, ada: Person, evil: str) -> None:
    for route in ("", "/cast", "/index"):
        answer = await ada.http.get(f"/api/v1/recordings/{evil}{route}")
        assert answer.status_code == 404, (evil, route)
    assert (await home.screen(f"/api/v1/recordings/{evil}/live", headers={
        "Authorization": f"Bearer {ada.token}"}).end()).status in (404, None)  # fmt: skip


async def test_search_gives_the_line_and_its_time(home: House, ada: Person, box: Machine) -> None:
    first = await recorded(ada, box)
    await recorded(ada, box, "echo something else")
    found = await ada.data("/api/v1/recordings", text="NEEDLE")
    assert [item["id"] for item in found["items"]] == [first]
    assert found["total"] == 1
    hit = found["items"][0]["hits"][0]
    assert "needle" in hit["line"]
    assert 0 <= hit["time"] <= found["items"][0]["duration"]
    assert (await ada.data("/api/v1/recordings", text="not there"))["total"] == 0
    listed = await ada.data("/api/v1/recordings", sort="started_at", page_size=1)
    assert (listed["total"], len(listed["items"])) == (2, 1)
    assert (await ada.http.get("/api/v1/recordings?sort=password")).status_code == 400
    nothing = await ada.data("/api/v1/recordings", until="2001-01-01T00:00:00Z")
    assert nothing["total"] == 0
    for query in ({"asset_id": box.id}, {"user": "ada"}, {"status": "finished"}, {"q": "ada"}):
        assert (await ada.data("/api/v1/recordings", **query))["total"] == 2, query


async def test_the_index_has_markers_and_sizes(home: House, ada: Person, box: Machine) -> None:
    screen, session_id = await ada.shell(box.id)
    screen.socket.drop()
    await screen.socket.done.wait()
    await ada.http.delete(f"/api/v1/sessions/{session_id}")
    recording = (await ada.data(f"/api/v1/sessions/{session_id}"))["recording"]
    index = await ada.data(f"/api/v1/recordings/{recording}/index")
    assert index["markers"][0]["label"] == "detached: ada"
    assert index["size"] == (await ada.data(f"/api/v1/recordings/{recording}"))["size"]
    assert index["duration"] > 0


async def test_the_live_view_has_no_gap_and_no_duplicate(
    home: House, ada: Person, box: Machine
) -> None:
    screen, session_id = await ada.shell(box.id)
    recording = (await ada.data(f"/api/v1/sessions/{session_id}"))["recording"]
    headers = {"Authorization": f"Bearer {ada.token}"}
    path = f"/api/v1/recordings/{recording}/live"
    views = [home.screen(f"{path}?offset={offset}", headers=headers) for offset in (0, 17)]
    screen.socket.type("for i in $(seq 1 40); do echo line-$i; sleep 0.01; done\n")
    await screen.until(b"line-20\r")
    await asyncio.sleep(0.5)
    late = home.screen(f"{path}?offset=40", headers=headers)
    await screen.until(b"line-40\r")
    screen.socket.type("exit\n")
    await screen.end()
    cast = (await ada.http.get(f"/api/v1/recordings/{recording}/cast")).content
    for view, offset in zip([*views, late], (0, 17, 40), strict=True):
        seen = b""
        code = None
        while code is None:
            async with asyncio.timeout(10):
                message = await view.socket._from_app.get()
            if message["type"] == "websocket.close":
                code = message["code"]
            else:
                assert message["text"].endswith("\n")
                seen += message["text"].encode()
        assert seen == cast[offset:]
        assert code == 1000


async def test_the_live_view_is_cut_with_the_right(home: House, ada: Person) -> None:
    bob = await home.person("bob")
    box = await home.machine(bob)
    screen, session_id = await bob.shell(box.id)
    recording = (await bob.data(f"/api/v1/sessions/{session_id}"))["recording"]
    view = home.screen(
        f"/api/v1/recordings/{recording}/live",
        headers={"Authorization": f"Bearer {bob.token}"},
    )
    await asyncio.sleep(0.6)
    await ada.http.patch(f"/api/v1/users/{bob.id}", json={"disabled": True})
    while True:
        message = await view.socket._from_app.get()
        if message["type"] == "websocket.close":
            break
    assert message["code"] in (4403, 1000)
    await screen.end()
    with pytest.raises(Closed):
        await home.screen(f"/api/v1/recordings/{recording}/live?offset=x").socket.receive()
    await box.host.close()


async def test_deleting_is_for_admins_and_finished_recordings(
    home: House, ada: Person, box: Machine
) -> None:
    screen, session_id = await ada.shell(box.id)
    recording = (await ada.data(f"/api/v1/sessions/{session_id}"))["recording"]
    path = f"/api/v1/recordings/{recording}"
    assert (await ada.http.delete(path)).status_code == 409
    screen.socket.type("exit\n")
    await screen.end()
    assert (await ada.http.delete(path)).status_code == 200
    assert (await ada.http.get(path)).status_code == 404
    assert (await ada.http.get(path + "/cast")).status_code == 404
    assert not list(home.services.settings.state.rglob(f"{recording}*"))
    assert (await ada.data("/api/v1/events", type="recording.deleted"))["total"] == 1


async def test_retention_by_size_and_age(home: House, ada: Person, box: Machine) -> None:
    first, second = await recorded(ada, box), await recorded(ada, box)
    desk = home.services.terminals.desk
    assert await desk.tidy() == 0
    size = (await ada.data(f"/api/v1/recordings/{second}"))["size"]
    desk._quota = size + 10
    assert await desk.tidy() == 1
    assert (await ada.http.get(f"/api/v1/recordings/{first}")).status_code == 404
    desk._quota = 0
    desk._retention = 3600
    assert await desk.tidy() == 0
    desk._retention = 0.000001
    assert await desk.tidy() == 1
    assert (await ada.data("/api/v1/recordings"))["total"] == 0
    assert (await ada.data("/api/v1/events", type="recording.expired"))["total"] == 2
