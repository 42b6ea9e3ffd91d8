// Run Lighthouse on the built page, served by the gateway with an API stub that has one finished job.
//
//   npm run lighthouse            videos, transcript and live captions; fails if a score is below 95
//
// PYTHON: a Python with Gorggle installed (default: .venv/bin/python of the repository). GORGGLE_CHROMIUM: the browser.

import { execFileSync, spawn } from "node:child_process";
import { createReadStream, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import * as chromeLauncher from "chrome-launcher";
import lighthouse from "lighthouse";

const MIN_SCORE = 95;
const CATEGORIES = ["performance", "accessibility", "best-practices"];
const root = fileURLToPath(new URL("../../", import.meta.url));
const python = process.env.PYTHON ?? join(root, ".venv/bin/python");
const video = join(root, "examples/two_speakers.mp4");
const result = JSON.parse(readFileSync(join(root, "tests/web/results/two_speakers.json"), "utf8"));
const job = {
  job_id: "0123456789abcdef0123456789abcdef",
  name: "two_speakers.mp4",
  state: "done",
  stage: "done",
  created_at: "2026-01-02T03:04:05Z",
  size_bytes: statSync(video).size,
  media: result.media,
  is_degraded: result.is_degraded,
  result_version: 1,
  percent: 100,
  steps: [],
};

/** Respond as the API and the video bucket. */
function respond(request, response) {
  const path = new URL(request.url, "http://localhost").pathname;
  const json = (document) => response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(document));
  if (path === "/jobs") return json({ jobs: [job] });
  if (path === `/jobs/${job.job_id}`) return json(job);
  if (path === `/jobs/${job.job_id}/result`) return json(result);
  if (path === `/jobs/${job.job_id}/video`) return json({ url: `${apiUrl}/video.mp4`, expires_in_s: 900 });
  if (path === "/video.mp4") return createReadStream(video).pipe(response.writeHead(200, { "content-type": "video/mp4", "content-length": job.size_bytes, "cross-origin-resource-policy": "cross-origin" }));
  response.writeHead(404, { "content-type": "application/problem+json" }).end(JSON.stringify({ status: 404, detail: "not found" }));
}

const api = createServer(respond);
await new Promise((resolve) => api.listen(0, "127.0.0.1", resolve));
const apiUrl = `http://127.0.0.1:${api.address().port}`;
const folder = mkdtempSync(join(tmpdir(), "lighthouse-"));
writeFileSync(join(folder, "token"), "any");
const gateway = spawn(python, ["-m", "gorggle_gateway", "--listen", "127.0.0.1:0", "--exit-on-stdin-eof", "--upstream", apiUrl, "--upstream-token-file", join(folder, "token"), "--connect", apiUrl], { stdio: ["pipe", "pipe", "inherit"] });
const [line] = await new Promise((resolve) => createInterface(gateway.stdout).once("line", (...lines) => resolve(lines)));
const site = `http://${JSON.parse(line).listening}`;
const chromePath = process.env.GORGGLE_CHROMIUM ?? execFileSync("sh", ["-c", "command -v chromium || command -v google-chrome"], { encoding: "utf8" }).trim();
const sandbox = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
const chrome = await chromeLauncher.launch({ chromePath, chromeFlags: ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", ...sandbox] });

let passes = true;
try {
  for (const [name, hash] of Object.entries({ videos: "#/", transcript: `#/jobs/${job.job_id}`, live: "#/live" })) {
    for (const formFactor of ["mobile", "desktop"]) {
      // Like `--preset=desktop`.
      const desktop = { formFactor, screenEmulation: { mobile: false, width: 1350, height: 940, deviceScaleFactor: 1, disabled: false }, throttling: { rttMs: 40, throughputKbps: 10_240, cpuSlowdownMultiplier: 1, requestLatencyMs: 0, downloadThroughputKbps: 0, uploadThroughputKbps: 0 } };
      const settings = { onlyCategories: CATEGORIES, ...(formFactor === "desktop" ? desktop : {}) };
      const { lhr } = await lighthouse(`${site}/${hash}`, { port: chrome.port, output: "json", logLevel: "error" }, { extends: "lighthouse:default", settings });
      const scores = CATEGORIES.map((category) => Math.round((lhr.categories[category]?.score ?? 0) * 100));
      const scoreByCategory = Object.fromEntries(CATEGORIES.map((category, index) => [category, scores[index]]));
      console.log(JSON.stringify({ page: name, form: formFactor, ...scoreByCategory, lcp_s: toSeconds(lhr, "largest-contentful-paint"), tbt_ms: Math.round(lhr.audits["total-blocking-time"].numericValue), cls: lhr.audits["cumulative-layout-shift"].numericValue }));
      if (Math.min(...scores) < MIN_SCORE) {
        passes = false;
        for (const audit of Object.values(lhr.audits)) if (audit.score !== null && audit.score < 0.9) console.log(`    ${audit.id}: ${audit.title} ${audit.displayValue ?? ""}`);
      }
    }
  }
} finally {
  await chrome.kill();
  gateway.stdin.end();
  api.closeAllConnections();
  api.close();
  rmSync(folder, { recursive: true });
}
process.exitCode = passes ? 0 : 1;

function toSeconds(lhr, audit) {
  return Math.round(lhr.audits[audit].numericValue / 10) / 100;
}
