"""Downloads from a server that misbehaves: what is saved, what is refused, what is tried again, and how gently."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from clipkit.errors import ClipkitError, RecordError
from clipkit.fetching.downloader import Downloader, Manners
from clipkit.fetching.folder import Folder, Saved
from clipkit.fetching.resolver import Resolver
from clipkit.images.limits import Limits
from clipkit.images.remote import is_public
from clipkit.tries import Failure
from tests.fetching.server import SELF_SIGNED, Server, picture, serving


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as some:
        yield some


def here(address: str) -> bool:
    """The guard's check, turned round for these tests: this machine and nothing else."""
    return address == "127.0.0.1"


class Downloads:
    """A downloader over an empty folder, with short waits."""

    def __init__(self, folder: Path, *, max_bytes: int = 1 << 20, allowed: Any = here, **manners: Any) -> None:
        self.folder = folder
        quick = Manners(**{"timeout": 10.0, "backoff": 0.01, **manners})
        self.downloader = Downloader(Folder(folder, Limits(max_bytes=max_bytes)), quick, allowed=allowed)

    def __enter__(self) -> Downloads:
        return self

    def __exit__(self, *_: object) -> None:
        self.downloader.close()
        assert not [path for path in self.folder.rglob("*") if "unfinished" in path.name or path.suffix == ".part"]

    def submit(self, url: str) -> Future[Saved]:
        return self.downloader.submit(url)

    def data(self, url: str) -> bytes:
        saved = self.submit(url).result(30)
        data = (self.folder / saved.name).read_bytes()
        assert len(data) == saved.bytes
        return data

    def refusal(self, url: str) -> RecordError:
        with pytest.raises(RecordError) as caught:
            self.submit(url).result(30)
        return caught.value

    def kind(self, url: str) -> str:
        return self.refusal(url).kind


@pytest.fixture
def downloads(tmp_path: Path) -> Iterator[Downloads]:
    with Downloads(tmp_path / "to") as some:
        yield some


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Host names and the addresses they have; others don't exist. Look-ups are counted under "asked"."""
    known: dict[str, list[str]] = {"asked": []}

    def resolve(host: str, port: int | None, **_: object) -> list[tuple[object, ...]]:
        known["asked"].append(host)
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in known[host]]

    monkeypatch.setattr("clipkit.fetching.resolver.socket.getaddrinfo", resolve)
    return known


# What is saved


@pytest.mark.parametrize(
    "path",
    [
        *("fine/a", "chunked/b", "until_close/c", "http_1_0/d", "closes_idle/e", "cookie/f", "false_encoding/g"),
        *("broken_once/500/h", "broken_once/503/i", "broken_once/429/j", "cut_once/k", "long_body/l", "busy/0/m"),
    ],
)
def test_a_picture_is_saved_byte_for_byte(server: Server, downloads: Downloads, path: str) -> None:
    assert downloads.data(server.url(path)) == picture(path.partition("/")[2])
    expected = 2 if "once" in path or "busy" in path else 1
    assert server.requests[f"/{path}"] == expected


def test_what_is_said_of_it(server: Server, downloads: Downloads) -> None:
    import hashlib

    data = picture("x", "PNG")
    saved = downloads.submit(server.url("png/x")).result(30)  # which the server calls a JPEG
    assert (saved.width, saved.height, saved.bytes) == (24, 32, len(data))
    assert saved.sha256 == hashlib.sha256(data).hexdigest()
    folder, _, name = saved.name.partition("/")
    assert name.startswith(folder) and name.endswith(".png") and len(folder) == 3


def test_how_we_ask(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Downloads(tmp_path, user_agent="lab/1.0 (me@lab.org)") as downloads:
        downloads.data(server.url("cookie/1"))
        downloads.data(server.url("cookie/2"))
        fields = server.fields["/cookie/2"]
    assert fields["user-agent"] == "lab/1.0 (me@lab.org)"
    assert fields["accept-encoding"] == "identity"
    assert fields["accept"] == "image/*"


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("fine/a%2Fb%20c.jpg?x=%41+y&z=%zz#part", "/fine/a%2Fb%20c.jpg?x=%41+y&z=%zz"),
        ("fine/a b.jpg", "/fine/a%20b.jpg"),
        ("fine/ä/猫.jpg?q=ü", "/fine/%C3%A4/%E7%8C%AB.jpg?q=%C3%BC"),
        ("fine/../../fine/x", "/fine/../../fine/x"),
        ("fine/[1],(2)'~!$&*+;=:@", "/fine/[1],(2)'~!$&*+;=:@"),
    ],
)
def test_what_is_encoded_stays_and_what_is_not_is_encoded(
    server: Server, downloads: Downloads, path: str, sent: str
) -> None:
    downloads.data(server.url(path))
    assert server.requests[sent] == 1, server.requests


def test_a_host_in_any_script(server: Server, downloads: Downloads, names: dict[str, list[str]]) -> None:
    names["xn--exmple-cua.com"] = ["127.0.0.1"]
    assert downloads.data(server.url("fine/1", host="exämple.com")) == picture("1")
    assert server.fields["/fine/1"]["host"].startswith("xn--exmple-cua.com:")


def test_a_large_picture_goes_to_the_disk_as_it_comes(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipkit.fetching.folder._IN_MEMORY", 5000)
    with Downloads(tmp_path) as downloads:
        assert downloads.data(server.url("large/1")) == picture("1", side=1500)
        assert downloads.kind(server.url("large_cut/1")) == "fetch-truncated"


# What is refused


@pytest.mark.parametrize(
    ("path", "kind", "requests"),
    [
        ("nothing/1", "fetch-status-404", 1),
        ("status/410/1", "fetch-status-410", 1),
        ("status/403/1", "fetch-status-403", 1),
        ("status/204/1", "fetch-status-204", 1),
        ("status/304/1", "fetch-status-304", 1),
        ("status/500/1", "fetch-status-500", 3),
        ("status/501/1", "fetch-status-501", 1),
        ("status/429/1", "fetch-status-429", 3),
        ("hang_up/1", "fetch-connect", None),
        ("cut/1", "fetch-truncated", 3),
        ("chunked_cut/1", "fetch-truncated", 3),
        ("cut_silently/1", "fetch-truncated", 3),
        ("huge_length/1", "fetch-too-large", 1),
        ("endless/1", "fetch-too-large", 1),
        ("gzipped/1", "fetch-format", 1),
        ("bomb/1", "fetch-format", 1),
        ("html/1", "fetch-format", 1),
        ("bits/1", "image-broken", 1),
        ("enormous/1", "image-too-many-pixels", 1),
        ("empty/1", "fetch-empty", 1),
        ("not_http/1", "fetch-http", 3),
        ("bad_fields/1", "fetch-http", 3),
        ("long_fields/1", "fetch-http", 3),
        ("nowhere/1", "fetch-redirects", 1),
        ("loop/1", "fetch-redirects", 6),
        ("to/1?file:///etc/passwd", "fetch-scheme", 1),
        ("to/1?ftp://127.0.0.1/x", "fetch-scheme", 1),
        ("to/1?http://host:port/", "fetch-url", 1),
        ("to/1?http://[::1/x", "fetch-url", 1),
        ("to/1?http://127.1/x", "fetch-url", 1),
        ("to/1?http://10.0.0.1/x", "fetch-private", 1),
        ("to/1?http://[::1]/x", "fetch-private", 1),
        ("to/1?http://[::ffff:169.254.169.254]/latest", "fetch-private", 1),
        ("to/1?http://169.254.169.254/latest/meta-data", "fetch-private", 1),
    ],
)
def test_what_is_refused(server: Server, downloads: Downloads, path: str, kind: str, requests: int | None) -> None:
    error = downloads.refusal(server.url(path))
    assert error.kind == kind, error
    if requests:
        assert server.requests[f"/{path}"] == requests
    assert "\n" not in error.message and error.message[-1] not in ".\n"


def test_an_answer_that_never_comes(server: Server, tmp_path: Path) -> None:
    with Downloads(tmp_path, timeout=0.3, retries=1) as downloads:
        started = time.monotonic()
        waiting = [downloads.submit(server.url(path)) for path in ("hang/1", "drip/1", "hang_once/1")]
        assert [type(one.exception(30)).__name__ for one in waiting] == ["Failure", "Failure", "NoneType"]
        assert downloads.kind(server.url("drip/1")) == "fetch-timeout"
        assert time.monotonic() - started < 10
    assert server.requests["/hang/1"] == server.requests["/drip/1"] == 2


def test_garbage_in_the_middle_of_an_answer(server: Server, tmp_path: Path) -> None:
    """aiohttp leaves whoever reads waiting then: the time-out ends it."""
    with Downloads(tmp_path, timeout=0.5, retries=0) as downloads:
        assert downloads.kind(server.url("chunked_garbage/1")) in ("fetch-timeout", "fetch-truncated", "fetch-http")


def test_a_picture_cut_by_a_false_length_is_noticed(server: Server, downloads: Downloads) -> None:
    """And what runs over into the next answer on that connection does it no harm."""
    shorter = downloads.submit(server.url("short_length/1"))
    others = [downloads.submit(server.url(f"fine/{i}")) for i in range(20)]
    assert getattr(shorter.exception(30), "kind", None) in ("fetch-truncated", "fetch-http")
    for i, other in enumerate(others):
        assert (downloads.folder / other.result(30).name).read_bytes() == picture(str(i))


def test_an_answer_that_nobody_asked_for_is_nobodys(server: Server, tmp_path: Path) -> None:
    with Downloads(tmp_path, per_host=1, retries=0) as downloads:
        coming = [downloads.submit(server.url(f"two_answers/{i}")) for i in range(3)]
        coming += [downloads.submit(server.url(f"fine/{i}")) for i in range(3, 6)]
        for i, one in enumerate(coming):
            assert (downloads.folder / one.result(30).name).read_bytes() == picture(str(i))
    assert server.connections == 4


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("http://nowhere.invalid/x", "fetch-dns"),
        ("http:///x", "fetch-url"),
        ("http://host:port/x", "fetch-url"),
        ("http://127.0.0.1:99999/x", "fetch-url"),
        ("http://[::1/x", "fetch-url"),
        ("http://127.0.0.1/\0", "fetch-url"),
        ("http://127.0.0.1/a\r\nHost: evil", "fetch-url"),
        ("http://127.0.0.1/\udcff", "fetch-url"),
        ("http://a..b/x", "fetch-dns"),
        ("http://" + "a" * 70 + ".com/x", "fetch-dns"),
        ("file:///etc/passwd", "fetch-scheme"),
        ("s3://bucket/key.jpg", "fetch-scheme"),
        ("http://10.1.2.3/x", "fetch-private"),
        ("http://[fe80::1%25eth0]/x", "fetch-private"),
        ("http://[::ffff:10.0.0.1]/x", "fetch-private"),
        ("http://127.0.0.1:1/x", "fetch-connect"),
    ],
)
def test_addresses_that_lead_nowhere(downloads: Downloads, names: dict[str, list[str]], url: str, kind: str) -> None:
    error = downloads.refusal(url)
    assert error.kind == kind, error
    assert error.message.isprintable()


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "127.1", "0x7f000001", "[::ffff:127.0.0.1]"]
)
def test_this_machine_is_refused_by_default(server: Server, tmp_path: Path, host: str) -> None:
    with Downloads(tmp_path, allowed=is_public, retries=0) as downloads:
        assert downloads.kind(server.url("fine/1", host=host)) in ("fetch-private", "fetch-url", "fetch-dns")
    assert not server.connections


@pytest.mark.parametrize("host", ["2130706433", "127.1", "127.0.0.1.", "0127.0.0.1", "1:2", "127.0.0.1"])
def test_no_spelling_of_an_address_gets_past_the_check(host: str) -> None:
    """Some versions of aiohttp resolve none of these, nor refuse them."""
    with pytest.raises(Failure):
        Resolver(is_public).check_literal(host)


def test_one_forbidden_address_of_a_name_is_enough(
    server: Server, downloads: Downloads, names: dict[str, list[str]]
) -> None:
    names["two.example"] = ["127.0.0.1", "10.0.0.1"]
    error = downloads.refusal(server.url("fine/1", host="two.example"))
    assert (error.kind, "10.0.0.1" in error.message) == ("fetch-private", True)
    assert not server.connections


def test_a_name_that_changes_its_mind_gains_nothing(
    server: Server, tmp_path: Path, names: dict[str, list[str]]
) -> None:
    """DNS rebinding: the connection goes to the address that was checked, and the name is asked for once."""
    names["pictures.example"] = ["127.0.0.1"]
    with Downloads(tmp_path) as downloads:
        downloads.data(server.url("fine/1", host="pictures.example"))
        names["pictures.example"] = ["10.0.0.1"]
        downloads.data(server.url("fine/2", host="pictures.example"))
    assert names["asked"] == ["pictures.example"]


def test_names_and_passwords_stay_out_of_messages_and_go_to_their_server_only(
    server: Server, downloads: Downloads, names: dict[str, list[str]]
) -> None:
    names["other.example"] = ["127.0.0.1"]
    own, other = server.url(""), server.url("", host="other.example")
    with_password = own.replace("//", "//me:secret@")
    assert downloads.data(f"{with_password}secret/1") == picture("1")
    error = downloads.refusal(f"{with_password}status/404/1")
    assert "secret@" not in error.message and "me:" not in error.message
    assert downloads.data(f"{with_password}to/1?{own}secret/2") == picture("2")
    assert downloads.kind(f"{with_password}to/2?{other}secret/3") == "fetch-status-401"


# Redirects


def test_redirects_are_followed(server: Server, downloads: Downloads, names: dict[str, list[str]]) -> None:
    names["other.example"] = ["127.0.0.1"]
    for code in (301, 302, 303, 307, 308):
        assert downloads.data(server.url(f"moved/{code}/x{code}")) == picture(f"{code}/x{code}")
    assert downloads.data(server.url("steps/5")) == picture("after-steps")
    assert downloads.kind(server.url("steps/6")) == "fetch-redirects"
    assert downloads.data(server.url("to/1?" + server.url("fine/2", host="other.example"))) == picture("2")


# Robots


@pytest.mark.parametrize("value", ["noai", "NoImageAI", "all, noindex", "clipkit: noimageindex", "nofollow;none"])
def test_what_a_server_forbids_is_left_alone(server: Server, downloads: Downloads, value: str) -> None:
    assert downloads.kind(server.url(f"robots/{value}")) == "fetch-robots"


@pytest.mark.parametrize("value", ["all", "googlebot: noindex", "nofollow", "unavailable_after: 1 Jan 2030"])
def test_what_it_forbids_others_or_otherwise_is_not(server: Server, downloads: Downloads, value: str) -> None:
    assert downloads.data(server.url(f"robots/{value}"))


def test_whoever_may_can_ignore_it(server: Server, tmp_path: Path) -> None:
    with Downloads(tmp_path, ignore_robots=True) as downloads:
        assert downloads.data(server.url("robots/noai"))
    with Downloads(tmp_path / "2", user_agent="MyBot/2") as downloads:
        assert downloads.kind(server.url("robots/mybot: noai")) == "fetch-robots"


# Gently


def test_not_more_at_once_than_asked(server: Server, tmp_path: Path, names: dict[str, list[str]]) -> None:
    hosts = [f"h{i}.example" for i in range(8)]
    names |= {host: ["127.0.0.1"] for host in hosts}
    with Downloads(tmp_path, concurrency=12, per_host=3) as downloads:
        coming = [downloads.submit(server.url(f"slow/{i}", host=hosts[i % 8])) for i in range(120)]
        for i, one in enumerate(coming):
            assert (tmp_path / one.result(30).name).read_bytes() == picture(str(i))
    assert all(1 < server.most[host] <= 3 for host in hosts)
    assert 6 < server.most_together <= 12
    assert set(server.requests.values()) == {1}
    assert server.connections <= 60  # they are used again


def test_hundreds_at_once(server: Server, tmp_path: Path) -> None:
    with Downloads(tmp_path, concurrency=200, per_host=200) as downloads:
        coming = [downloads.submit(server.url(f"slow/{i}")) for i in range(400)]
        assert len({one.result(30).sha256 for one in coming}) == 400
    assert server.most_together > 100


def test_a_redirect_counts_for_the_host_it_leads_to(
    server: Server, tmp_path: Path, names: dict[str, list[str]]
) -> None:
    names |= {f"h{i}.example": ["127.0.0.1"] for i in range(8)} | {"all.example": ["127.0.0.1"]}
    with Downloads(tmp_path, per_host=2) as downloads:
        target = server.url("slow/", host="all.example")
        coming = [downloads.submit(server.url(f"to/{i}?{target}{i}", host=f"h{i % 8}.example")) for i in range(32)]
        assert all(one.result(30) for one in coming)
    assert server.most["all.example"] <= 2


def test_a_server_that_asks_for_time_gets_it(server: Server, downloads: Downloads) -> None:
    started = time.monotonic()
    first = downloads.submit(server.url("busy/1/x"))
    while not server.requests["/busy/1/x"]:
        time.sleep(0.01)
    time.sleep(0.1)
    downloads.data(server.url("fine/same-host"))  # waits too
    assert time.monotonic() - started >= 0.9
    first.result(30)
    assert server.requests["/busy/1/x"] == 2


def test_also_until_a_date(server: Server, downloads: Downloads) -> None:
    assert downloads.data(server.url("busy_until/x")) == picture("x")


@pytest.mark.parametrize("year", ["9999", "99999", "99999999999999999999"])
def test_nor_longer_than_it_can_be_said(server: Server, downloads: Downloads, year: str) -> None:
    assert downloads.kind(server.url(f"busy_forever/{year}")) == "fetch-status-503"


def test_one_that_asks_for_an_hour_is_left_alone(server: Server, downloads: Downloads) -> None:
    assert downloads.kind(server.url("busy/3600/x")) == "fetch-status-429"
    assert server.requests["/busy/3600/x"] == 1


def test_a_slow_server_holds_up_nobody_else(server: Server, tmp_path: Path, names: dict[str, list[str]]) -> None:
    names |= {"slow.example": ["127.0.0.1"], "quick.example": ["127.0.0.1"]}
    with Downloads(tmp_path, concurrency=8, per_host=4) as downloads:
        stuck = [downloads.submit(server.url(f"hang/{i}", host="slow.example")) for i in range(20)]
        for i in range(20):
            downloads.data(server.url(f"fine/{i}", host="quick.example"))
        assert not any(one.done() for one in stuck)


# Once


def test_equal_urls_are_downloaded_once(server: Server, downloads: Downloads) -> None:
    url, bad = server.url("slow/same"), server.url("nothing/same")
    assert len({downloads.submit(url).result(30) for _ in range(3)}) == 1
    together = [downloads.submit(url) for _ in range(5)]
    assert len({one.result(30) for one in together}) == 1
    assert [downloads.kind(bad) for _ in range(3)] == ["fetch-status-404"] * 3
    assert server.requests == {"/slow/same": 1, "/nothing/same": 1}


def test_what_is_there_is_not_downloaded_again(server: Server, tmp_path: Path) -> None:
    with Downloads(tmp_path) as downloads:
        before = downloads.submit(server.url("fine/1")).result(30)
    with Downloads(tmp_path) as downloads:
        assert downloads.submit(server.url("fine/1")).result(30) == before
        assert downloads.downloader.reused == 1
        (tmp_path / before.name).write_bytes(b"spoilt")
        assert downloads.submit(server.url("fine/1")).result(30) == before
    assert server.requests["/fine/1"] == 2
    assert (tmp_path / before.name).read_bytes() == picture("1")


# Ending


def test_stopping_ends_all_that_wait(server: Server, tmp_path: Path) -> None:
    with Downloads(tmp_path, timeout=60) as downloads:
        coming = [downloads.submit(server.url(f"hang/{i}")) for i in range(50)]
        downloads.downloader.stop()
        assert {downloads.refusal(server.url("fine/late")).kind} == {"fetch-stopped"}
        assert all(isinstance(one.exception(5), RecordError) for one in coming)
        started = time.monotonic()
    assert time.monotonic() - started < 10


def test_a_disk_that_takes_nothing_is_not_the_records_fault(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    some = Downloader(Folder(tmp_path / "file"), Manners(), allowed=here)
    try:
        with pytest.raises(ClipkitError) as caught:
            some.submit(server.url("fine/1")).result(30)
        assert not isinstance(caught.value, RecordError)
    finally:
        some.close()


# Certificates


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path, names: dict[str, list[str]]) -> None:
    names["pictures.example"] = ["127.0.0.1"]
    with serving(tls=True) as server, Downloads(tmp_path) as downloads:
        error = downloads.refusal(server.url("fine/1", host="pictures.example"))
        assert (error.kind, "certificate" in error.message) == ("fetch-tls", True)
        assert downloads.kind(server.url("fine/1").replace("https:", "http:")) == "fetch-connect"
        assert not server.requests


def test_one_that_is_vouched_for_is_taken_for_its_own_name(tmp_path: Path) -> None:
    """In a process of its own: the certificates that are trusted are read once."""
    program = """if True:
        import socket, sys
        from pathlib import Path
        from clipkit.errors import RecordError
        from clipkit.fetching.downloader import Downloader, Manners
        from clipkit.fetching.folder import Folder
        socket.getaddrinfo = lambda host, *_, **__: [(2, 1, 6, "", ("127.0.0.1", 0))]
        downloader = Downloader(Folder(sys.argv[1]), Manners(), allowed=lambda address: True)
        for host in ("pictures.example", "other.example"):
            try:
                print(downloader.submit(f"https://{host}:{sys.argv[2]}/fine/1").result(30).width)
            except RecordError as error:
                print(error.kind)
        downloader.close()
    """
    with serving(tls=True) as server:
        command = [sys.executable, "-c", program, str(tmp_path), str(server.port)]
        env = {"SSL_CERT_FILE": str(SELF_SIGNED)}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert (done.stdout.split(), done.stderr) == (["24", "fetch-tls"], "")
