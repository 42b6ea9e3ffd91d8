/** Sign-in with a Cognito user pool: OAuth 2.0 authorization code flow with PKCE (RFC 7636), which needs no client secret. */

import { strings } from "./i18n/en";

/** The user pool's domain and the page's client ID. */
export interface SignInConfig {
  url: string;
  clientId: string;
}

interface PendingSignIn {
  verifier: string;
  state: string;
  /** The route to restore after the sign-in. */
  hash: string;
}

const STORAGE_KEY = "gorggle.signin";

/** Redirect to the sign-in page, which redirects back with an authorization code. */
export async function redirectToSignIn(config: SignInConfig): Promise<void> {
  const pending: PendingSignIn = { verifier: randomText(), state: randomText(), hash: location.hash };
  sessionStorage.setItem(STORAGE_KEY, JSON.stringify(pending));
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(pending.verifier));
  const query = new URLSearchParams({
    response_type: "code",
    client_id: config.clientId,
    redirect_uri: redirectUri(),
    scope: "openid email",
    state: pending.state,
    code_challenge: base64Url(new Uint8Array(digest)),
    code_challenge_method: "S256",
  });
  location.assign(`${config.url}/oauth2/authorize?${query}`);
}

/** Exchange the authorization code in the page's URL for an access token; null without a code. Throws if the exchange fails. */
export async function completeSignIn(config: SignInConfig): Promise<string | null> {
  const query = new URLSearchParams(location.search);
  const code = query.get("code");
  const pending = loadPendingSignIn();
  // A code whose state does not match was not requested by this browser (CSRF).
  if (!code || !pending || query.get("state") !== pending.state) return null;
  sessionStorage.removeItem(STORAGE_KEY);
  history.replaceState(null, "", location.pathname);
  if (pending.hash) location.replace(pending.hash);
  const response = await fetch(`${config.url}/oauth2/token`, {
    method: "POST",
    body: new URLSearchParams({ grant_type: "authorization_code", client_id: config.clientId, redirect_uri: redirectUri(), code, code_verifier: pending.verifier }),
    credentials: "omit",
  });
  const tokens = (await response.json().catch(() => ({}))) as { access_token?: unknown };
  if (!response.ok || typeof tokens.access_token !== "string") throw new Error(strings.signIn.failed);
  return tokens.access_token;
}

function loadPendingSignIn(): PendingSignIn | null {
  try {
    return JSON.parse(sessionStorage.getItem(STORAGE_KEY) ?? "null") as PendingSignIn | null;
  } catch {
    return null;
  }
}

/** Return the redirect URI registered with the user pool. */
function redirectUri(): string {
  return `${location.origin}/`;
}

function randomText(): string {
  return base64Url(crypto.getRandomValues(new Uint8Array(32)));
}

function base64Url(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}
