"""What a `uri` means: never a way out of a root, and judged anew at every open."""

import os
from pathlib import Path

import pytest

from service.errors import FileMissing, SourceForbidden
from service.reference import judge, resolve_reference


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a slide and with ways out; the way out leads to `secret.svs`."""
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (tmp_path / "rootless").mkdir()
    for path in (tmp_path / "secret.svs", tmp_path / "rootless" / "x.svs", root / "a" / "slide.svs"):
        path.write_bytes(b"II*\0")
    (root / "out.svs").symlink_to(tmp_path / "secret.svs")
    (root / "up").symlink_to(tmp_path)
    (root / "in.svs").symlink_to(root / "a" / "slide.svs")
    (root / "round.svs").symlink_to(root / "round.svs")
    (root / "%2e%2e").mkdir()
    os.mkfifo(root / "pipe.svs")
    return root


def test_a_path_below_a_root_is_resolved(root: Path) -> None:
    slide = str(root / "a" / "slide.svs")
    for uri in (slide, str(root / "in.svs"), f"{root}//a/./slide.svs", str(root / "up" / "root" / "a" / "slide.svs")):
        assert resolve_reference(uri, [str(root)]).path == slide
    assert resolve_reference(str(root / "a"), [str(root)]).path == str(root / "a")


def test_a_root_may_itself_be_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "archive").symlink_to(root)
    for folder in (tmp_path / "archive", root):
        found = resolve_reference(f"{folder}/a/slide.svs", [str(tmp_path / "archive")])
        assert (found.path, found.root) == (str(root / "a" / "slide.svs"), str(root))


@pytest.mark.parametrize(
    "uri",
    [
        "{root}/../secret.svs",
        "{root}/a/../a/slide.svs",
        "{root}/out.svs",
        "{root}/up/secret.svs",
        "{root}less/x.svs",
        "{root}",
        "{root}/",
        "{above}/secret.svs",
        "a/slide.svs",
        "",
        "/",
        "~/slide.svs",
        "file://{root}/a/slide.svs",
        "FILE://{root}/a/slide.svs",
        "local://{root}/a/slide.svs",
        "simplecache::file://{root}/a/slide.svs",
        "{root}/a/slide.svs\0",
        "{root}/a/slide.svs\n",
        "http://host/a.svs",
    ],
)
def test_there_is_no_way_out_of_a_root(root: Path, uri: str) -> None:
    with pytest.raises(SourceForbidden) as raised:
        resolve_reference(uri.format(root=root, above=root.parent), [str(root)])
    assert str(root.parent) not in str(raised.value)


@pytest.mark.parametrize("name", ["none.svs", "round.svs", "pipe.svs", "%2e%2e/secret.svs", "a/slide.svs/x", "x" * 300])
def test_what_is_not_below_a_root_is_missing(root: Path, name: str) -> None:
    with pytest.raises(FileMissing):
        resolve_reference(f"{root}/{name}", [str(root)])


URL_ROOTS = ["s3://bucket/slides/", "https://host.example:8443/a"]


@pytest.mark.parametrize(
    "url",
    ["s3://bucket/slides/a.svs", "s3://bucket/slides/b c/d%20e.svs", "https://HOST.example:8443/a/b.svs"],
)
def test_a_url_below_a_root_is_taken_as_it_is(url: str) -> None:
    assert resolve_reference(url, URL_ROOTS).path == url


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/slides",
        "s3://bucket/slides/",
        "s3://bucket/slides-of-others/a.svs",
        "s3://bucket/a.svs",
        "s3://other/slides/a.svs",
        "s3://bucket/slides/../a.svs",
        "s3://bucket/slides/%2e%2e/a.svs",
        "s3://bucket/slides/%252e%252e/a.svs",
        "s3://bucket/slides/x%2f..%2fa.svs",
        "s3://bucket/slides/..%5ca.svs",
        "s3://bucket/slides/a.svs%00",
        "s3://bucket/slides//a.svs",
        "s3://bucket/slides/./a.svs",
        "s3://bucket\\@other/slides/a.svs",
        "gs://bucket/slides/a.svs",
        "https://host.example/a/b.svs",
        "https://host.example:8443/a/b.svs?to=http://internal",
        "https://host.example:8443/a/b.svs?",
        "https://host.example:8443/a/b.svs#x",
        "https://user:secret@host.example:8443/a/b.svs",
        "https://host.example:8443@evil.example/a/b.svs",
        "https://evil.example#host.example:8443/a/b.svs",
        "https://[host/a/b.svs",
        "https://host.example:8443.evil.example/a/b.svs",
        "zip://*.svs::https://host.example:8443/a/b.zip",
        "http://host.example:8443/a/b.svs",
        "file:///a/b.svs",
    ],
)
def test_there_is_no_way_past_a_url(url: str) -> None:
    with pytest.raises(SourceForbidden) as raised:
        resolve_reference(url, URL_ROOTS)
    assert "secret" not in str(raised.value)


def test_without_roots_nothing_is_referred_to(root: Path) -> None:
    for uri in (str(root / "a" / "slide.svs"), "s3://bucket/a.svs"):
        with pytest.raises(SourceForbidden):
            resolve_reference(uri, [])


def test_what_was_accepted_is_judged_by_the_roots_of_today(root: Path) -> None:
    accepted = resolve_reference(str(root / "a" / "slide.svs"), [str(root)]).path
    assert judge(accepted, ["s3://bucket", str(root / "a")]).root == str(root / "a")
    for roots in ([], [str(root / "b")], [f"{root}/a/slide"], ["s3://bucket"]):
        with pytest.raises(SourceForbidden):
            judge(accepted, roots)
    with pytest.raises(SourceForbidden):
        judge(URL_ROOTS[0] + "a.svs", URL_ROOTS[1:])
