"""The viewer with an OpenID provider: a real browser goes there, comes back with a cookie, and signs out."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.deployment.programs import free_port
from tests.integration.running import Running
from tests.provider import ROLES, running_provider
from tests.web.conftest import until


@pytest.fixture(scope="module")
def page(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The viewer of a service that no key was made for."""
    folder, port = tmp_path_factory.mktemp("sign in"), free_port()
    url = f"http://127.0.0.1:{port}"
    with running_provider() as provider:
        settings = {"oidc_issuer": provider, "oidc_client_id": "mitosis", "oidc_client_secret": "s"}
        settings |= {"oidc_roles": ROLES, "public_url": url}
        service = Running(folder / "data", **settings)
        service.port = port
        try:
            service.start(ready=False)
            with chromium.new_page() as opened:
                opened.goto(f"{url}/#slide=none")
                yield opened
        finally:
            service.stop()


def enter(page: Any, who: str) -> None:
    page.get_by_role("button", name="Sign in with your organization").click()
    page.wait_for_url(re.compile("/oauth2/authorize"))
    page.locator("input[name=sub]").first.fill(who)
    page.locator("input[name=sub]").first.press("Enter")


def test_somebody_without_a_role_is_told_and_somebody_with_one_is_let_in(page: Any) -> None:
    enter(page, "guest")
    problem = page.get_by_role("alert").filter(has_text="no role that is known here")
    problem.wait_for()
    assert "sign-in" not in page.url
    enter(page, "ann")
    page.locator("main").wait_for()
    assert page.get_by_role("dialog").count() == 0
    until(page, lambda: page.url.endswith("#slide=none"))  # where she was going
    cookies = {cookie["name"]: cookie for cookie in page.context.cookies()}
    assert cookies["mitosis_session"]["httpOnly"]
    assert cookies["mitosis_session"]["sameSite"] == "Strict"
    assert "mitosis_sign_in" not in cookies
