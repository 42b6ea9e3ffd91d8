/** The frame around every page: sign-in, header, messages. */

import { Component } from "preact";
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Api, ApiError, loadConfig } from "./api";
import { Icon } from "./icons";
import { HomePage } from "./pages/home";
import { JobPage } from "./pages/job";
import { LivePage } from "./pages/live";
import { SessionPage } from "./pages/session";
import { goToSignIn, tokenFromSignIn } from "./signin";
import { api, dismiss, isSignedIn, saveItem, loadItem, toasts, errorMessage, route, theme, toggleTheme } from "./store";
import type { SignInPages } from "./signin";
import { strings } from "./i18n/en";

export function App() {
  const [isReady, setReady] = useState(false);
  const [fault, setFault] = useState("");
  useEffect(() => {
    start().then(
      () => setReady(true),
      (error: unknown) => setFault(errorMessage(error)),
    );
  }, []);
  if (fault) {
    return (
      <main class="alone" id="content">
        <h1>{strings.app.name}</h1>
        <p role="alert">{fault}</p>
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
      <a class="skip" href="#content" onClick={skip}>
        {strings.app.skip}
      </a>
      <Header />
      <Fence key={JSON.stringify(route.value)}>
        <Page />
      </Fence>
      <Notices />
    </>
  );
}

async function start(): Promise<void> {
  const made = new Api(await loadConfig());
  const { signIn } = made.config;
  const given = signIn && (await tokenFromSignIn(signIn));
  if (given) keepToken(given, false);
  made.token = given ?? loadItem("token") ?? sessionToken() ?? "";
  made.onUnauthorized = () => {
    isSignedIn.value = false;
  };
  isSignedIn.value = made.config.auth === "none" || made.token !== "";
  api.value = made;
}

function skip(event: Event): void {
  event.preventDefault();
  document.getElementById("content")?.focus();
}

function Page() {
  const where = route.value;
  const shown = useRef(where);
  useEffect(() => {
    // A reader of the screen is told that the page changed, but not when it first appears.
    if (shown.current !== where) document.getElementById("content")?.focus({ preventScroll: true });
    shown.current = where;
    window.scrollTo(0, 0);
  }, [where]);
  switch (where.page) {
    case "home":
      return <HomePage />;
    case "job":
      return <JobPage key={where.id} id={where.id} />;
    case "live":
      return <LivePage />;
    case "session":
      return <SessionPage key={where.id} id={where.id} />;
    case "unknown":
      return (
        <main id="content" tabIndex={-1} class="alone">
          <h1>{strings.app.notFound}</h1>
          <a href="#/">{strings.app.home}</a>
        </main>
      );
  }
}

function Header() {
  const where = route.value.page;
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
        <a href="#/" aria-current={where === "home" ? "page" : undefined}>
          {strings.app.videos}
        </a>
        {api.value.config.live && (
          <a href="#/live" aria-current={where === "live" ? "page" : undefined}>
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

function Notices() {
  return (
    <div class="notices" aria-live="polite">
      {toasts.value.map((notice) => (
        <div key={notice.id} class={`notice ${notice.kind}`} role={notice.kind === "error" ? "alert" : undefined}>
          <p>{notice.text}</p>
          <button type="button" class="plain" aria-label={strings.app.dismiss} onClick={() => dismiss(notice.id)}>
            <Icon name="close" />
          </button>
        </div>
      ))}
    </div>
  );
}

/** Catches what a page throws, so that the rest stays. */
class Fence extends Component<{ children: ComponentChildren }, { fault: string }> {
  override state = { fault: "" };

  static getDerivedStateFromError(error: unknown) {
    return { fault: errorMessage(error) };
  }

  override render() {
    if (!this.state.fault) return this.props.children;
    return (
      <main id="content" tabIndex={-1} class="alone">
        <h1>{strings.app.fault}</h1>
        <p role="alert">{this.state.fault}</p>
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
  return signIn ? <SignInAway pages={signIn} /> : <SignInHere />;
}

/** Where there is a user pool: its own pages ask for name, password and second factor. */
function SignInAway({ pages }: { pages: SignInPages }) {
  return (
    <main class="alone" id="content" tabIndex={-1}>
      <div class="card sign-in">
        <h1>{strings.signIn.title}</h1>
        <p>{strings.signIn.pagesLead}</p>
        <button type="button" class="primary" onClick={() => void goToSignIn(pages)}>
          {strings.signIn.submit}
        </button>
      </div>
    </main>
  );
}

function SignInHere() {
  const [token, setToken] = useState("");
  const [isKept, setKept] = useState(false);
  const [problem, setProblem] = useState("");
  const submit = async (event: Event) => {
    event.preventDefault();
    api.value.token = token.trim();
    try {
      await api.value.jobs();
      keepToken(api.value.token, isKept);
      isSignedIn.value = true;
    } catch (error) {
      const isWrong = error instanceof ApiError && (error.status === 401 || error.status === 403);
      setProblem(isWrong ? strings.signIn.wrong : errorMessage(error));
    }
  };
  return (
    <main class="alone" id="content" tabIndex={-1}>
      <form class="card sign-in" onSubmit={submit}>
        <h1>{strings.signIn.title}</h1>
        <p>{strings.signIn.lead}</p>
        <label for="token">{strings.signIn.token}</label>
        <input id="token" type="password" autocomplete="current-password" required value={token} aria-describedby={problem ? "problem" : undefined} onInput={(event) => setToken(event.currentTarget.value)} />
        <label class="check">
          <input type="checkbox" checked={isKept} onChange={(event) => setKept(event.currentTarget.checked)} />
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

function sessionToken(): string | null {
  try {
    return sessionStorage.getItem("gorggle.token");
  } catch {
    return null;
  }
}

function keepToken(token: string, isKept: boolean): void {
  saveItem("token", isKept ? token : null);
  try {
    sessionStorage.setItem("gorggle.token", token);
  } catch {
    // Then it holds as long as the page does.
  }
}

function signOut(): void {
  keepToken("", false);
  saveItem("token", null);
  api.value.token = "";
  isSignedIn.value = false;
}
