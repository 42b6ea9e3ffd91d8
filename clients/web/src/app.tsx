/** The application shell: routing, sign-in, header, toasts. */

import { Component } from "preact";
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Api, ApiError, loadConfig } from "./api";
import { Icon } from "./icons";
import { HomePage } from "./pages/home";
import { JobPage } from "./pages/job";
import { LivePage } from "./pages/live";
import { SessionPage } from "./pages/session";
import { redirectToSignIn, completeSignIn } from "./signin";
import { api, dismissToast, isSignedIn, saveItem, loadItem, toasts, errorMessage, route, theme, toggleTheme } from "./store";
import type { SignInConfig } from "./signin";
import { strings } from "./i18n/en";

export function App() {
  const [isReady, setReady] = useState(false);
  const [problem, setProblem] = useState("");
  useEffect(() => {
    start().then(
      () => setReady(true),
      (error: unknown) => setProblem(errorMessage(error)),
    );
  }, []);
  if (problem) {
    return (
      <main class="centered" id="content">
        <h1>{strings.app.name}</h1>
        <p role="alert">{problem}</p>
        <button type="button" class="primary" onClick={() => location.reload()}>
          {strings.app.reload}
        </button>
      </main>
    );
  }
  if (!isReady) return null;
  if (!isSignedIn.value) return <SignIn />;
  return (
    <>
      <a class="skip" href="#content" onClick={skipToContent}>
        {strings.app.skip}
      </a>
      <Header />
      <ErrorBoundary key={JSON.stringify(route.value)}>
        <Page />
      </ErrorBoundary>
      <Toasts />
    </>
  );
}

async function start(): Promise<void> {
  const client = new Api(await loadConfig());
  const { signIn } = client.config;
  const newToken = signIn && (await completeSignIn(signIn));
  if (newToken) saveToken(newToken, false);
  client.token = newToken ?? loadItem("token") ?? loadSessionToken() ?? "";
  client.onUnauthorized = () => {
    isSignedIn.value = false;
  };
  isSignedIn.value = client.config.auth === "none" || client.token !== "";
  api.value = client;
}

function skipToContent(event: Event): void {
  event.preventDefault();
  document.getElementById("content")?.focus();
}

function Page() {
  const current = route.value;
  const shown = useRef(current);
  useEffect(() => {
    // Move the focus, so that screen readers announce a change of page, but not the first page.
    if (shown.current !== current) document.getElementById("content")?.focus({ preventScroll: true });
    shown.current = current;
    window.scrollTo(0, 0);
  }, [current]);
  switch (current.page) {
    case "home":
      return <HomePage />;
    case "job":
      return <JobPage key={current.id} id={current.id} />;
    case "live":
      return <LivePage />;
    case "session":
      return <SessionPage key={current.id} id={current.id} />;
    case "unknown":
      return (
        <main id="content" tabIndex={-1} class="centered">
          <h1>{strings.app.notFound}</h1>
          <a href="#/">{strings.app.home}</a>
        </main>
      );
  }
}

function Header() {
  const { page } = route.value;
  const isDark = theme.value === "dark";
  const label = isDark ? strings.app.theme.light : strings.app.theme.dark;
  return (
    <header class="bar">
      <a class="brand" href="#/">
        <svg viewBox="0 0 64 64" aria-hidden="true">
          <rect width="64" height="64" rx="15" class="brand-ground" />
          <path class="brand-lips" d="M9 31c6-9 12-13 16-13 3 0 5 2 7 2s4-2 7-2c4 0 10 4 16 13-6 11-14 16-23 16S15 42 9 31Z" />
          <path class="brand-ground" d="M17 31c5-2 10-3 15-3s10 1 15 3c-5 4-10 6-15 6s-10-2-15-6Z" />
        </svg>
        {strings.app.name}
      </a>
      <nav aria-label={strings.app.name}>
        <a href="#/" aria-current={page === "home" ? "page" : undefined}>
          {strings.app.videos}
        </a>
        {api.value.config.live && (
          <a href="#/live" aria-current={page === "live" ? "page" : undefined}>
            {strings.app.live}
          </a>
        )}
      </nav>
      <button type="button" class="plain" aria-label={label} title={label} onClick={toggleTheme}>
        <Icon name={isDark ? "sun" : "moon"} />
      </button>
      {api.value.config.auth === "token" && (
        <button type="button" class="plain wide" onClick={signOut}>
          {strings.app.signOut}
        </button>
      )}
    </header>
  );
}

function Toasts() {
  return (
    <div class="toasts" aria-live="polite">
      {toasts.value.map((toast) => (
        <div key={toast.id} class={`toast ${toast.kind}`} role={toast.kind === "error" ? "alert" : undefined}>
          <p>{toast.text}</p>
          <button type="button" class="plain" aria-label={strings.app.dismiss} onClick={() => dismissToast(toast.id)}>
            <Icon name="close" />
          </button>
        </div>
      ))}
    </div>
  );
}

/** Shows errors thrown while rendering a page; the header stays usable. */
class ErrorBoundary extends Component<{ children: ComponentChildren }, { problem: string }> {
  override state = { problem: "" };

  static getDerivedStateFromError(error: unknown) {
    return { problem: errorMessage(error) };
  }

  override render() {
    if (!this.state.problem) return this.props.children;
    return (
      <main id="content" tabIndex={-1} class="centered">
        <h1>{strings.app.error}</h1>
        <p role="alert">{this.state.problem}</p>
        <button type="button" class="primary" onClick={() => location.reload()}>
          {strings.app.reload}
        </button>
      </main>
    );
  }
}

// --------------------------------------------------------------------------------------------------------- sign-in

function SignIn() {
  const { signIn } = api.value.config;
  return signIn ? <SignInRedirect config={signIn} /> : <TokenForm />;
}

/** Sign-in at the user pool, which asks for credentials and the second factor. */
function SignInRedirect({ config }: { config: SignInConfig }) {
  return (
    <main class="centered" id="content" tabIndex={-1}>
      <div class="card sign-in">
        <h1>{strings.signIn.title}</h1>
        <p>{strings.signIn.accountLead}</p>
        <button type="button" class="primary" onClick={() => void redirectToSignIn(config)}>
          {strings.signIn.submit}
        </button>
      </div>
    </main>
  );
}

/** Sign-in with a pasted token. */
function TokenForm() {
  const [token, setToken] = useState("");
  const [isRemembered, setRemembered] = useState(false);
  const [problem, setProblem] = useState("");
  const submit = async (event: Event) => {
    event.preventDefault();
    api.value.token = token.trim();
    try {
      await api.value.listJobs();
      saveToken(api.value.token, isRemembered);
      isSignedIn.value = true;
    } catch (error) {
      const isWrong = error instanceof ApiError && (error.status === 401 || error.status === 403);
      setProblem(isWrong ? strings.signIn.wrong : errorMessage(error));
    }
  };
  return (
    <main class="centered" id="content" tabIndex={-1}>
      <form class="card sign-in" onSubmit={submit}>
        <h1>{strings.signIn.title}</h1>
        <p>{strings.signIn.lead}</p>
        <label for="token">{strings.signIn.token}</label>
        <input id="token" type="password" autocomplete="current-password" required value={token} aria-describedby={problem ? "problem" : undefined} onInput={(event) => setToken(event.currentTarget.value)} />
        <label class="check">
          <input type="checkbox" checked={isRemembered} onChange={(event) => setRemembered(event.currentTarget.checked)} />
          {strings.signIn.remember}
        </label>
        {problem && (
          <p id="problem" role="alert" class="problem">
            {problem}
          </p>
        )}
        <button type="submit" class="primary">
          {strings.signIn.submit}
        </button>
      </form>
    </main>
  );
}

function loadSessionToken(): string | null {
  try {
    return sessionStorage.getItem("gorggle.token");
  } catch {
    return null;
  }
}

function saveToken(token: string, isRemembered: boolean): void {
  saveItem("token", isRemembered ? token : null);
  try {
    sessionStorage.setItem("gorggle.token", token);
  } catch {
    // Without storage, the token is lost when the page is closed.
  }
}

function signOut(): void {
  saveToken("", false);
  saveItem("token", null);
  api.value.token = "";
  isSignedIn.value = false;
}
