/** Signing in at the pages of a user pool: OAuth 2.0's code flow with PKCE (RFC 7636), which keeps no secret in the page. */

import { strings } from "./i18n/en";

/** Where people sign in, and as what this page is known there. */
export interface SignInPages {
  url: string;
  clientId: string;
}

interface Going {
  verifier: string;
  state: string;
  /** Where in the page they were. */
  hash: string;
}

const KEPT = "gorggle.signin";

/** Leave for the sign-in pages; they lead back here with a code. */
export async function goToSignIn(pages: SignInPages): Promise<void> {
  const going: Going = { verifier: randomText(), state: randomText(), hash: location.hash };
  sessionStorage.setItem(KEPT, JSON.stringify(going));
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(going.verifier));
  const query = new URLSearchParams({
    response_type: "code",
    client_id: pages.clientId,
    redirect_uri: home(),
    scope: "openid email",
    state: going.state,
    code_challenge: base64Url(new Uint8Array(digest)),
    code_challenge_method: "S256",
  });
  location.assign(`${pages.url}/oauth2/authorize?${query}`);
}

/** The token, where the sign-in pages have just led back here; null where they have not. Throws where they give none. */
export async function tokenFromSignIn(pages: SignInPages): Promise<string | null> {
  const query = new URLSearchParams(location.search);
  const code = query.get("code");
  const going = loadPendingSignIn();
  // A code that nobody here asked for is somebody else's doing.
  if (!code || !going || query.get("state") !== going.state) return null;
  sessionStorage.removeItem(KEPT);
  history.replaceState(null, "", location.pathname);
  if (going.hash) location.replace(going.hash);
  const response = await fetch(`${pages.url}/oauth2/token`, {
    method: "POST",
    body: new URLSearchParams({ grant_type: "authorization_code", client_id: pages.clientId, redirect_uri: home(), code, code_verifier: going.verifier }),
    credentials: "omit",
  });
  const answer = (await response.json().catch(() => ({}))) as { access_token?: unknown };
  if (!response.ok || typeof answer.access_token !== "string") throw new Error(strings.signIn.failed);
  return answer.access_token;
}

function loadPendingSignIn(): Going | null {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT) ?? "null") as Going | null;
  } catch {
    return null;
  }
}

/** The page's own address, as the user pool knows it. */
function home(): string {
  return `${location.origin}/`;
}

function randomText(): string {
  return base64Url(crypto.getRandomValues(new Uint8Array(32)));
}

function base64Url(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}
