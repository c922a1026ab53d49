"""docs/how-to/behind-a-proxy.md works as written: nginx in front, agents and people behind it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.programs import AgentProgram, GatewayProgram, eventually, free_port, killing, run
from tests.e2e.test_exec import token_of

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "behind-a-proxy.md"

pytestmark = pytest.mark.needs("nginx", "openssl")


class Proxy:
    """nginx with the page's configuration; only names, ports and places are changed."""

    def __init__(self, directory: Path, upstream: int) -> None:
        directory.mkdir()
        self.port = free_port()
        self.url = f"https://localhost:{self.port}"
        self.certificate, key = directory / "cert.pem", directory / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
             "-keyout", str(key), "-out", str(self.certificate)],
            check=True, capture_output=True,
        )  # fmt: skip
        block = re.search(r"```nginx\n(.*?)```", PAGE.read_text(), re.DOTALL)
        assert block
        server = (
            block[1]
            .replace("listen 443 ssl", f"listen 127.0.0.1:{self.port} ssl")
            .replace("/etc/ssl/gw.example.org.pem", str(self.certificate))
            .replace("/etc/ssl/gw.example.org.key", str(key))
            .replace("gw.example.org", "localhost")
            .replace("127.0.0.1:3000", f"127.0.0.1:{upstream}")
            .replace("$host;", "$http_host;", 1)  # the port is not 443 here
            .replace("X-Forwarded-Host $host;", "X-Forwarded-Host $http_host;")
        )
        places = "".join(
            f"{name}_temp_path {directory}/{name};\n"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (directory / "nginx.conf").write_text(
            f"daemon off; pid {directory}/pid; error_log {directory}/error.log;\n"
            f"events {{}}\nhttp {{ access_log off;\n{places}{server}}}\n"
        )
        self.process = subprocess.Popen(
            ["/usr/sbin/nginx", "-p", str(directory), "-c", str(directory / "nginx.conf")],
            stderr=subprocess.DEVNULL,
        )

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[tuple[GatewayProgram, Proxy]]:
    port = free_port()
    proxy = Proxy(tmp_path / "nginx", port)
    gateway = GatewayProgram(
        tmp_path / "gateway",
        port=port,
        arguments=["--public-url", proxy.url],
        env={"UNDERPASS_TRUSTED_PROXIES": "127.0.0.1"},
    )
    with killing(gateway):
        gateway.start()
        yield gateway, proxy
    gateway.close()
    proxy.close()


def test_everything_goes_through_the_proxy(
    behind: tuple[GatewayProgram, Proxy], tmp_path: Path
) -> None:
    gateway, proxy = behind
    admin = gateway.login()
    trust = {"SSL_CERT_FILE": str(proxy.certificate)}

    def call(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        return run(
            gateway, tmp_path / "cli", "--server", proxy.url, *arguments,
            token=token_of(admin), env=trust,
        )  # fmt: skip

    eventually(lambda: call("machines").returncode == 0, 20, "the proxy answering")
    found = {check["name"]: check for check in json.loads(call("--json", "doctor").stdout)}
    assert found.pop("link over TCP")["result"] == "fail"
    assert found.pop("QUIC over UDP")["result"] == "skip"
    assert {check["result"] for check in found.values()} == {"ok"}, found

    gateway.url, plain = proxy.url, gateway.url
    agent = AgentProgram(
        tmp_path, gateway, "behind", token=gateway.join_token(admin),
        env={"SSL_CERT_FILE": str(proxy.certificate)},
    )  # fmt: skip
    gateway.url = plain
    with killing(agent):
        agent.start()
        gateway.machine(admin, "behind", 30)
        done = call("exec", "behind", "--", "sh", "-c", "echo through; exit 7")
        assert (done.returncode, done.stdout) == (7, b"through\n"), done.stderr
        shell = run(
            gateway, tmp_path / "cli", "--server", proxy.url, "shell", "behind", "--",
            "bash --norc --noprofile", token=token_of(admin), env=trust,
            stdin=b"echo $((6*7))\nexit 4\n",
        )  # fmt: skip
        assert b"42" in shell.stdout
        assert shell.returncode == 4, shell.stderr
    made = json.loads(call("--json", "token", "create").stdout)
    assert f"--server {proxy.url}" in made["join_command"]
