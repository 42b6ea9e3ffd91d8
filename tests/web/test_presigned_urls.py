"""Tests with videos and results on other origins, as on AWS: presigned URLs, CORS, CSP and sign-in."""

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
    ACTION_TIMEOUT_MS,
    EXAMPLES,
    Site,
    Visit,
    load_result,
    record_errors,
    running_site,
    wait_until,
)
from tests.web.pipeline import Pipeline

Visitor = Callable[..., Visit]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
DEMO = EXAMPLES / "demo.mp4"
VIDEO = "document.querySelector('video')"
HAS_FRAME = f"{VIDEO} && {VIDEO}.readyState >= 2 && {VIDEO}.videoWidth > 0"
IS_PLAYING = f"!{VIDEO}.paused && {VIDEO}.currentTime > 0.5"


def play(page: Any) -> None:
    """Press Play, and wait until the video plays."""
    page.wait_for_selector(".word")
    wait_until(page, HAS_FRAME)
    page.click("button[aria-label='Play']")
    wait_until(page, IS_PLAYING)


def test_an_uploaded_video_plays_again_after_reloading(visit: Visitor) -> None:
    with running_site(Pipeline(seconds=0.5)) as site:
        page = visit(site.url).page
        page.set_input_files("[data-testid=files]", DEMO)
        page.click("a.name")
        play(page)
        assert page.evaluate(f"{VIDEO}.src").startswith("blob:"), "the video should play from memory"
        assert site.pipeline.num_video_urls == 0
        page.reload()
        play(page)
        assert "/store/" in page.evaluate(f"{VIDEO}.src")
        assert site.pipeline.num_video_urls == 1


def test_an_expired_video_url_is_renewed_at_the_same_position(site: Site, visit: Visitor) -> None:
    job = site.pipeline.add("demo.mp4", DEMO, load_result("demo"))
    site.pipeline.expiring_urls = {1}
    page = visit(f"{site.url}/#/jobs/{job.job_id}").page
    play(page)
    page.click("button[aria-label='Pause']")
    # The browser has not buffered this part, and its URL has expired.
    last = load_result("demo")["segments"][-1]
    page.click(f"[data-segment='{last['id']}'] [data-index='1']")
    wait_until(page, f"{VIDEO}.src.endsWith('number=2') && {HAS_FRAME}")
    wait_until(page, f"Math.abs({VIDEO}.currentTime - {last['words'][1]['start_s']}) < 0.05")
    assert page.locator(".no-video").count() == 0


def test_an_unplayable_video_is_reported_after_a_second_url_has_failed(site: Site, visit: Visitor) -> None:
    job = site.pipeline.add("demo.mp4", DEMO, load_result("demo"))
    site.pipeline.expired_urls = set(range(100))
    page = visit(f"{site.url}/#/jobs/{job.job_id}").page
    page.wait_for_selector(".no-video")
    assert site.pipeline.num_video_urls == 2
    assert page.locator(".word").count() > 20


# --------------------------------------------------------------------------------------------------------- AWS

REGION = "eu-west-1"
UPLOADS, RESULTS = "gorggle-uploads", "gorggle-results"
SITE = "https://d0123.cloudfront.net"
API = f"https://abc123.execute-api.{REGION}.amazonaws.com"
UPLOADS_ORIGIN, RESULTS_ORIGIN = (f"https://{name}.s3.{REGION}.amazonaws.com" for name in (UPLOADS, RESULTS))
TOKEN = "a-token-for-tests"
POOL, CLIENT_ID = f"https://gorggle-test-123456789012.auth.{REGION}.amazoncognito.com", "client-1"

ALL_ORIGINS = (SITE, API, UPLOADS_ORIGIN, RESULTS_ORIGIN, POOL)


@dataclass
class Cloud:
    """A fake of the deployed site, API, buckets and user pool, with AWS host names and the stack's CORS rules."""

    pipeline: Pipeline
    has_pool: bool = False
    port: int = 0
    challenge: str = ""
    origins: list[tuple[str, str, str]] = field(default_factory=list)

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self.apply_cors])
        self.pipeline.add_routes(app)
        app.router.add_get("/config.json", self.config)
        app.router.add_get("/", self.index)
        app.router.add_static("/assets", static_files.PAGE_DIR / "assets")
        app.router.add_get("/icon.svg", self.icon)
        app.router.add_get("/oauth2/authorize", self.authorize)
        app.router.add_post("/oauth2/token", self.token)
        return app

    async def config(self, _request: web.Request) -> web.StreamResponse:
        """Return the configuration that ``Website`` publishes."""
        document: dict[str, Any] = {
            "api": f"{API}/api",
            "live": "",
            "max_upload_bytes": 2**30,
            "auth": "token",
        }
        if self.has_pool:
            document |= {"auth": "cognito", "client_id": CLIENT_ID, "sign_in": POOL}
        return web.json_response(document)

    async def authorize(self, request: web.Request) -> web.StreamResponse:
        """Redirect back with a code, as the user pool does after a sign-in."""
        query = request.query
        assert (query["response_type"], query["client_id"]) == ("code", CLIENT_ID)
        assert (query["code_challenge_method"], query["redirect_uri"]) == ("S256", f"{SITE}/")
        self.challenge = query["code_challenge"]
        raise web.HTTPFound(f"{SITE}/?{urlencode({'code': 'code-1', 'state': query['state']})}")

    async def token(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        digest = hashlib.sha256(str(form["code_verifier"]).encode()).digest()
        is_valid = base64.urlsafe_b64encode(digest).decode().rstrip("=") == self.challenge
        if not is_valid or form["code"] != "code-1" or form["client_id"] != CLIENT_ID:
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
    async def apply_cors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Apply CORS rules as API Gateway and S3 do: without a matching rule, no headers and no preflight."""
        origin = request.headers.get("origin")
        if origin is None:
            return await handler(request)
        self.origins.append((request.method, request.host, origin))
        method = request.headers.get("access-control-request-method", request.method)
        headers = request.headers.get("access-control-request-headers", "")
        requested_headers = {name.strip() for name in headers.lower().split(",") if name.strip()}
        rule = next(
            (each for each in self._rules(request.host) if permits(each, origin, method, requested_headers)),
            None,
        )
        if request.method == "OPTIONS":
            response: web.StreamResponse = web.Response(status=204 if rule else 403)
        else:
            response = await handler(request)
        if rule:
            response.headers["access-control-allow-origin"] = origin
            response.headers["access-control-allow-methods"] = ", ".join(rule["allowed_methods"])
            response.headers["access-control-allow-headers"] = ", ".join(rule["allowed_headers"])
            response.headers["access-control-expose-headers"] = ", ".join(rule.get("expose_headers", ()))
        return response

    def _rules(self, host: str) -> list[dict[str, Any]]:
        if API.endswith(host):
            api = api_cors_rule([SITE])
            return [{f"allowed_{name.removeprefix('allow_')}": api[name] for name in api}]
        if POOL.endswith(host):
            # A user pool's token endpoint allows every origin; a token needs a valid code.
            return [{"allowed_origins": [SITE], "allowed_methods": ["POST"], "allowed_headers": []}]
        download, upload = download_cors_rule([SITE]), upload_cors_rule([SITE])
        return {UPLOADS_ORIGIN: [upload, download], RESULTS_ORIGIN: [download]}.get(f"https://{host}", [])


def permits(rule: dict[str, Any], origin: str, method: str, headers: set[str]) -> bool:
    return (
        origin in rule["allowed_origins"]
        and method in rule["allowed_methods"]
        and headers <= set(rule["allowed_headers"])
    )


@contextlib.contextmanager
def running_cloud(cloud: Cloud, folder: Path) -> Iterator[None]:
    """Serve all origins over TLS on one local port."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*(urlsplit(each).netloc for each in ALL_ORIGINS)).configure_cert(context)
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
    fake = Cloud(pipeline)
    with running_cloud(fake, tmp_path):
        yield fake


@pytest.fixture
def tab(cloud: Cloud, open_browser: Callable[..., Any]) -> Iterator[Any]:
    """A tab of a browser that resolves the AWS host names to this machine. Fails the test on errors in the page."""
    rules = ", ".join(f"MAP {urlsplit(each).netloc} 127.0.0.1:{cloud.port}" for each in ALL_ORIGINS)
    browser = open_browser(f"--host-resolver-rules={rules}")
    context = browser.new_context(ignore_https_errors=True, locale="en-GB")
    visit = record_errors(context.new_page())
    yield visit.page
    context.close()
    assert visit.errors == []


@pytest.fixture
def page(tab: Any) -> Any:
    """The site with a signed-in user."""
    tab.goto(SITE)
    tab.fill("#token", TOKEN)
    tab.click("button[type=submit]")
    return tab


def test_sign_in_with_a_user_pool_returns_to_the_same_page(cloud: Cloud, tab: Any) -> None:
    cloud.has_pool = True
    job = cloud.pipeline.add("demo.mp4", DEMO, load_result("demo"))
    tab.goto(f"{SITE}/#/jobs/{job.job_id}")
    tab.click(".sign-in button")
    tab.wait_for_selector(".word")
    assert tab.url == f"{SITE}/#/jobs/{job.job_id}", "the code should be removed from the URL"
    tab.reload()
    tab.wait_for_selector(".word")


def test_an_unrequested_code_is_ignored(cloud: Cloud, tab: Any) -> None:
    cloud.has_pool = True
    tab.goto(f"{SITE}/?code=code-1&state=foreign")
    tab.wait_for_selector(".sign-in")
    assert not [host for _, host, _ in cloud.origins if POOL.endswith(host)]


def test_the_site_on_aws_uploads_transcribes_and_plays_across_origins(cloud: Cloud, page: Any) -> None:
    page.set_input_files("[data-testid=files]", DEMO)
    page.click("a.name")
    play(page)
    page.reload()
    play(page)
    assert page.evaluate(f"{VIDEO}.src").startswith(UPLOADS_ORIGIN)
    assert {origin for _, _, origin in cloud.origins} == {SITE}


def test_a_result_that_is_too_large_for_the_api_is_fetched_from_its_bucket(cloud: Cloud, page: Any) -> None:
    cloud.pipeline.response_limit_bytes = 100
    job = cloud.pipeline.add("demo.mp4", DEMO, load_result("demo"))
    page.goto(f"{SITE}/#/jobs/{job.job_id}")
    page.wait_for_selector(".word")
    assert ("GET", RESULTS_ORIGIN.removeprefix("https://"), SITE) in cloud.origins
    page.dblclick("[data-segment='segment-1'] [data-index='0']")
    page.keyboard.type("pin")
    page.keyboard.press("Enter")
    is_saved = "document.querySelector('.save').dataset.state === 'saved'"
    wait_until(page, is_saved, lambda: len(job.results) == 2)
    assert page.locator("[data-segment='segment-1'] [data-index='0']").inner_text() == "pin"
    with page.expect_download(timeout=ACTION_TIMEOUT_MS) as download:
        page.click("summary.button")
        page.click(".menu button:has-text('WebVTT')")
    assert "pin blue" in Path(download.value.path()).read_text()


def test_other_origins_have_no_access_to_the_buckets_and_the_api(cloud: Cloud) -> None:
    for host in (UPLOADS_ORIGIN, RESULTS_ORIGIN, API):
        rules = cloud._rules(host.removeprefix("https://"))
        assert rules
        for origin in ("https://evil.example.org", "null", f"{SITE}.evil.example.org"):
            assert not [rule for rule in rules if permits(rule, origin, "GET", set())]
