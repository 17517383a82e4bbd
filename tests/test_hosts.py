"""Where a `uri` may lead: over real HTTP to servers of this machine, under names that the system looks up."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from service.errors import SettingsInvalid, SourceForbidden
from service.hosts import find_address, listed_hosts, may_lead_to
from tests.slides import draw_tissue, write_svs

pytest.importorskip("aiohttp", reason="HTTP is read with it")
OPEN = """
import sys
from service.errors import MitosisError
from service.hosts import guard_urls, listed_hosts
from service.slide import open_slide
guard_urls(listed_hosts([each for each in sys.argv[2].split(",") if each]))
for url in sys.argv[1].split():
    try:
        with open_slide(url) as slide:
            print("opened", slide.width)
    except MitosisError as error:
        print(error.code, error)
"""


@pytest.mark.parametrize(
    ("address", "may", "listed"),
    [
        ("93.184.216.34", True, True),
        ("2606:2800:220:1::1", True, True),
        ("127.0.0.1", False, True),
        ("10.1.2.3", False, True),
        ("::1", False, True),
        ("fd00::1", False, True),
        ("::ffff:10.0.0.1", False, True),
        ("169.254.169.254", False, False),
        ("::ffff:169.254.169.254", False, False),
        ("fe80::1%eth0", False, False),
        ("224.0.0.1", False, False),
        ("0.0.0.0", False, False),
    ],
)
def test_a_name_leads_to_no_private_address_unless_it_is_listed(address: str, may: bool, listed: bool) -> None:
    assert may_lead_to("slides.example", 443, address, ()) == may
    assert may_lead_to("slides.example", 443, address, listed_hosts(["Slides.Example."])) == listed
    assert may_lead_to("slides.example", 443, address, listed_hosts(["slides.example:443"])) == listed
    assert may_lead_to("slides.example", 443, address, listed_hosts(["slides.example:80", "example"])) == may
    assert may_lead_to(address, 443, address, ())  # a root says so itself


def test_what_is_no_host_is_no_entry_of_the_list() -> None:
    for entry in ("http://host", "host/path", "*", "[::1", "a b", "host:port"):
        with pytest.raises(SettingsInvalid, match="MITOSIS_URI_HOSTS"):
            listed_hosts([entry])


def test_the_name_of_this_machine_is_judged_by_its_address(private_name: str) -> None:
    with pytest.raises(SourceForbidden, match="MITOSIS_URI_HOSTS"):
        find_address(private_name, 80, ())
    assert find_address(private_name, 80, ((private_name, None),))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A server of a slide, by its port; what begins with `/to/` is redirected to the rest."""
    content = write_svs(tmp_path / "slide.svs", draw_tissue(300, 200)).read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/to/"):
                self.send_response(302)
                self.send_header("Location", self.path.removeprefix("/to/"))
                self.end_headers()
                return
            first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
            part = content[int(first) : int(last or len(content)) + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part if self.command == "GET" else b"")

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield str(server.server_port)
    server.shutdown()
    server.server_close()


def opened(url: str, hosts: str = "") -> str:
    """What a process says that opens a URL."""
    run = [sys.executable, "-c", OPEN, url, hosts]
    return subprocess.run(run, capture_output=True, text=True, check=True, timeout=120).stdout


def test_redirects_are_refused_unless_their_host_is_listed(server: str) -> None:
    here = f"http://127.0.0.1:{server}"
    elsewhere = (f"http://127.0.0.1:{server}/slide.svs", f"http://localhost:{server}/slide.svs", "/slide.svs")
    said = opened(" ".join([f"{here}/slide.svs", *(f"{here}/to/{each}" for each in elsewhere)])).splitlines()
    assert said[0] == "opened 300"
    assert [line.split(";")[0] for line in said[1:]] == ["uri-forbidden 127.0.0.1 redirects elsewhere"] * 3
    listed = opened(
        " ".join(f"{here}/to/{each}" for each in elsewhere), f"127.0.0.1:{server}, localhost:1".replace(" ", "")
    )
    assert [line.split()[0] for line in listed.splitlines()] == ["opened", "uri-forbidden", "opened"]


def test_a_name_with_a_private_address_is_refused_unless_it_is_listed(server: str, private_name: str) -> None:
    url = f"http://{private_name}:{server}/slide.svs"
    assert opened(url).startswith(f"uri-forbidden {private_name} has a private address")
    assert opened(url, f"{private_name}:{server}") == "opened 300\n"
