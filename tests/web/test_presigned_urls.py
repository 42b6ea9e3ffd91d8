"""Videos and results that lie elsewhere: played and fetched by their addresses, across the origins that AWS puts them on."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import trustme
from aiohttp import web

from gorggle_gateway import static_files
from infrastructure.cors import (
    api_cors_rule,
    build_content_security_policy,
    download_cors_rule,
    upload_cors_rule,
)
from tests.web.conftest import (
    ACTION_LIMIT_MS,
    EXAMPLES,
    Site,
    Visit,
    result,
    running_site,
    wait_until,
    watched,
)
from tests.web.pipeline import Pipeline

Go = Callable[..., Visit]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
DEMO = EXAMPLES / "demo.mp4"
VIDEO = "document.querySelector('video')"
HAS_PICTURE = f"{VIDEO} && {VIDEO}.readyState >= 2 && {VIDEO}.videoWidth > 0"
PLAYS = f"!{VIDEO}.paused && {VIDEO}.currentTime > 0.5"


def plays(page: Any) -> None:
    """The picture is there, and moves."""
    page.wait_for_selector(".word")
    wait_until(page, HAS_PICTURE)
    page.click("button[aria-label='Play']")
    wait_until(page, PLAYS)


def test_an_uploaded_video_plays_again_after_reloading(visit: Go) -> None:
    with running_site(Pipeline(seconds=0.5)) as site:
        page = visit(site.url).page
        page.set_input_files("[data-testid=files]", DEMO)
        page.click("a.name")
        plays(page)
        assert page.evaluate(f"{VIDEO}.src").startswith("blob:"), "it plays from the page's own memory"
        assert site.pipeline.addresses == 0
        page.reload()
        plays(page)
        assert "/store/" in page.evaluate(f"{VIDEO}.src")
        assert site.pipeline.addresses == 1


def test_an_address_that_has_run_out_is_renewed_where_the_player_was(site: Site, visit: Go) -> None:
    job = site.pipeline.add("demo.mp4", DEMO, result("demo"))
    site.pipeline.running_out = {1}
    page = visit(f"{site.url}/#/jobs/{job.job_id}").page
    plays(page)
    page.click("button[aria-label='Pause']")
    # The browser does not hold this part yet, and the address that it has gives nothing more.
    last = result("demo")["segments"][-1]
    page.click(f"[data-segment='{last['id']}'] [data-index='1']")
    wait_until(page, f"{VIDEO}.src.endsWith('address=2') && {HAS_PICTURE}")
    wait_until(page, f"Math.abs({VIDEO}.currentTime - {last['words'][1]['start_s']}) < 0.05")
    assert page.locator(".no-video").count() == 0


def test_a_video_that_cannot_be_played_is_said_once_another_address_has_failed(site: Site, visit: Go) -> None:
    job = site.pipeline.add("demo.mp4", DEMO, result("demo"))
    site.pipeline.run_out = set(range(100))
    page = visit(f"{site.url}/#/jobs/{job.job_id}").page
    page.wait_for_selector(".no-video")
    assert site.pipeline.addresses == 2
    assert page.locator(".word").count() > 20


# --------------------------------------------------------------------------------------------------------- as on AWS

REGION = "eu-west-1"
UPLOADS, RESULTS = "gorggle-uploads", "gorggle-results"
SITE = "https://d0123.cloudfront.net"
API = f"https://abc123.execute-api.{REGION}.amazonaws.com"
UPLOADS_ORIGIN, RESULTS_ORIGIN = (f"https://{name}.s3.{REGION}.amazonaws.com" for name in (UPLOADS, RESULTS))
TOKEN = "a-token-for-tests"
POOL, CLIENT_ID = f"https://gorggle-test-123456789012.auth.{REGION}.amazoncognito.com", "client-1"


ALL = (SITE, API, UPLOADS_ORIGIN, RESULTS_ORIGIN, POOL)


@dataclass
class Cloud:
    """Site, API and buckets under the names that they have on AWS, each with the rules that the stack gives it."""

    pipeline: Pipeline
    has_pool: bool = False
    port: int = 0
    challenge: str = ""
    origins: list[tuple[str, str, str]] = field(default_factory=list)

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self.ruled])
        self.pipeline.add_routes(app)
        app.router.add_get("/config.json", self.config)
        app.router.add_get("/", self.index)
        app.router.add_static("/assets", static_files.PAGE_DIR / "assets")
        app.router.add_get("/icon.svg", self.icon)
        app.router.add_get("/oauth2/authorize", self.authorize)
        app.router.add_post("/oauth2/token", self.token)
        return app

    async def config(self, _request: web.Request) -> web.StreamResponse:
        """As ``Website.publish`` writes it."""
        known: dict[str, Any] = {"api": f"{API}/api", "live": "", "max_upload_bytes": 2**30, "auth": "token"}
        if self.has_pool:
            known |= {"auth": "cognito", "client_id": CLIENT_ID, "sign_in": POOL}
        return web.json_response(known)

    async def authorize(self, request: web.Request) -> web.StreamResponse:
        """As the user pool's pages do once somebody has signed in."""
        asked = request.query
        assert (asked["response_type"], asked["client_id"]) == ("code", CLIENT_ID)
        assert (asked["code_challenge_method"], asked["redirect_uri"]) == ("S256", f"{SITE}/")
        self.challenge = asked["code_challenge"]
        raise web.HTTPFound(f"{SITE}/?{urlencode({'code': 'code-1', 'state': asked['state']})}")

    async def token(self, request: web.Request) -> web.StreamResponse:
        given = await request.post()
        digest = hashlib.sha256(str(given["code_verifier"]).encode()).digest()
        is_right = base64.urlsafe_b64encode(digest).decode().rstrip("=") == self.challenge
        if not is_right or given["code"] != "code-1" or given["client_id"] != CLIENT_ID:
            return web.json_response({"error": "invalid_grant"}, status=400)
        return web.json_response({"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600})

    async def index(self, _request: web.Request) -> web.StreamResponse:
        policy = build_content_security_policy(REGION, UPLOADS, RESULTS, POOL if self.has_pool else "")
        return web.FileResponse(
            static_files.PAGE_DIR / "index.html", headers={"content-security-policy": policy}
        )

    async def icon(self, _request: web.Request) -> web.StreamResponse:
        return web.FileResponse(static_files.PAGE_DIR / "icon.svg")

    @web.middleware
    async def ruled(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """CORS as API Gateway and S3 answer by their rules: what no rule permits gets no header, and no preflight."""
        origin = request.headers.get("origin")
        if origin is None:
            return await handler(request)
        self.origins.append((request.method, request.host, origin))
        asked = request.headers.get("access-control-request-method", request.method)
        headers = request.headers.get("access-control-request-headers", "")
        wanted = {name.strip() for name in headers.lower().split(",") if name.strip()}
        rule = next(
            (each for each in self._rules(request.host) if permits(each, origin, asked, wanted)), None
        )
        if request.method == "OPTIONS":
            answer: web.StreamResponse = web.Response(status=204 if rule else 403)
        else:
            answer = await handler(request)
        if rule:
            answer.headers["access-control-allow-origin"] = origin
            answer.headers["access-control-allow-methods"] = ", ".join(rule["allowed_methods"])
            answer.headers["access-control-allow-headers"] = ", ".join(rule["allowed_headers"])
            answer.headers["access-control-expose-headers"] = ", ".join(rule.get("expose_headers", ()))
        return answer

    def _rules(self, host: str) -> list[dict[str, Any]]:
        if API.endswith(host):
            api = api_cors_rule([SITE])
            return [{f"allowed_{name.removeprefix('allow_')}": api[name] for name in api}]
        if POOL.endswith(host):
            # Every page may ask a user pool for tokens: who has no code gets none.
            return [{"allowed_origins": [SITE], "allowed_methods": ["POST"], "allowed_headers": []}]
        reading, sending = download_cors_rule([SITE]), upload_cors_rule([SITE])
        return {UPLOADS_ORIGIN: [sending, reading], RESULTS_ORIGIN: [reading]}.get(f"https://{host}", [])


def permits(rule: dict[str, Any], origin: str, method: str, headers: set[str]) -> bool:
    return (
        origin in rule["allowed_origins"]
        and method in rule["allowed_methods"]
        and headers <= set(rule["allowed_headers"])
    )


@contextlib.contextmanager
def running_cloud(cloud: Cloud, folder: Path) -> Iterator[None]:
    """Serve all of it, by TLS, from one port of this machine."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*(urlsplit(each).netloc for each in ALL)).configure_cert(context)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> web.AppRunner:
        runner = web.AppRunner(cloud.app(), shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        return runner

    runner = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    cloud.port = runner.addresses[0][1]
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    pipeline = Pipeline(seconds=0.5, token=TOKEN)
    pipeline.uploads_origin, pipeline.results_origin = UPLOADS_ORIGIN, RESULTS_ORIGIN
    made = Cloud(pipeline)
    with running_cloud(made, tmp_path):
        yield made


@pytest.fixture
def tab(cloud: Cloud, open_browser: Callable[..., Any]) -> Iterator[Any]:
    """A tab of a browser that finds AWS's names on this machine; nothing may go wrong in it."""
    rules = ", ".join(f"MAP {urlsplit(each).netloc} 127.0.0.1:{cloud.port}" for each in ALL)
    browser = open_browser(f"--host-resolver-rules={rules}")
    context = browser.new_context(ignore_https_errors=True, locale="en-GB")
    visit = watched(context.new_page())
    yield visit.page
    context.close()
    assert visit.faults == []


@pytest.fixture
def page(tab: Any) -> Any:
    """The site's page, signed in."""
    tab.goto(SITE)
    tab.fill("#token", TOKEN)
    tab.click("button[type=submit]")
    return tab


def test_people_of_a_user_pool_sign_in_at_its_pages_and_come_back_to_where_they_were(
    cloud: Cloud, tab: Any
) -> None:
    cloud.has_pool = True
    job = cloud.pipeline.add("demo.mp4", DEMO, result("demo"))
    tab.goto(f"{SITE}/#/jobs/{job.job_id}")
    tab.click(".sign-in button")
    tab.wait_for_selector(".word")
    assert tab.url == f"{SITE}/#/jobs/{job.job_id}", "no code is left in the address"
    tab.reload()
    tab.wait_for_selector(".word")


def test_a_code_that_nobody_asked_for_is_not_taken(cloud: Cloud, tab: Any) -> None:
    cloud.has_pool = True
    tab.goto(f"{SITE}/?code=code-1&state=somebody-else-s")
    tab.wait_for_selector(".sign-in")
    assert not [host for _, host, _ in cloud.origins if POOL.endswith(host)]


def test_the_site_on_aws_uploads_reads_and_plays_across_origins(cloud: Cloud, page: Any) -> None:
    page.set_input_files("[data-testid=files]", DEMO)
    page.click("a.name")
    plays(page)
    page.reload()
    plays(page)
    assert page.evaluate(f"{VIDEO}.src").startswith(UPLOADS_ORIGIN)
    assert {origin for _, _, origin in cloud.origins} == {SITE}


def test_a_result_that_is_too_large_for_the_api_is_fetched_from_its_bucket(cloud: Cloud, page: Any) -> None:
    cloud.pipeline.answer_limit_bytes = 100
    job = cloud.pipeline.add("demo.mp4", DEMO, result("demo"))
    page.goto(f"{SITE}/#/jobs/{job.job_id}")
    page.wait_for_selector(".word")
    assert ("GET", RESULTS_ORIGIN.removeprefix("https://"), SITE) in cloud.origins
    page.dblclick("[data-segment='segment-1'] [data-index='0']")
    page.keyboard.type("pin")
    page.keyboard.press("Enter")
    is_saved = "document.querySelector('.save').dataset.state === 'saved'"
    wait_until(page, is_saved, lambda: len(job.results) == 2)
    assert page.locator("[data-segment='segment-1'] [data-index='0']").inner_text() == "pin"
    with page.expect_download(timeout=ACTION_LIMIT_MS) as download:
        page.click("summary.button")
        page.click(".menu button:has-text('WebVTT')")
    assert "pin blue" in Path(download.value.path()).read_text()


def test_pages_of_others_get_nothing_out_of_the_buckets(cloud: Cloud) -> None:
    for host in (UPLOADS_ORIGIN, RESULTS_ORIGIN, API):
        rules = cloud._rules(host.removeprefix("https://"))
        assert rules
        for origin in ("https://evil.example.org", "null", f"{SITE}.evil.example.org"):
            assert not [rule for rule in rules if permits(rule, origin, "GET", set())]
