/** Saved live sessions, stored in the browser's IndexedDB only. */

import type { Result } from "../result";

export interface SessionSummary {
  id: string;
  name: string;
  createdAt: string;
  durationS: number;
}

export interface Session extends SessionSummary {
  result: Result;
  names: Record<string, string>;
  recording: Blob | null;
}

const DATABASE = "gorggle";
const SUMMARIES = "summaries";
const SESSIONS = "sessions";

/** List the saved sessions, newest first, without their results and recordings. */
export async function listSessions(): Promise<SessionSummary[]> {
  const summaries = await runTransaction<SessionSummary[]>([SUMMARIES], "readonly", (transaction) => transaction.objectStore(SUMMARIES).getAll());
  return summaries.sort((a, b) => b.createdAt.localeCompare(a.createdAt));
}

export async function loadSession(id: string): Promise<Session | null> {
  return (await runTransaction<Session | undefined>([SESSIONS], "readonly", (transaction) => transaction.objectStore(SESSIONS).get(id))) ?? null;
}

export async function saveSession(session: Session): Promise<void> {
  const { result: _result, names: _names, recording: _recording, ...summary } = session;
  await runTransaction([SUMMARIES, SESSIONS], "readwrite", (transaction) => {
    transaction.objectStore(SUMMARIES).put(summary);
    return transaction.objectStore(SESSIONS).put(session);
  });
}

export async function deleteSession(id: string): Promise<void> {
  await runTransaction([SUMMARIES, SESSIONS], "readwrite", (transaction) => {
    transaction.objectStore(SUMMARIES).delete(id);
    return transaction.objectStore(SESSIONS).delete(id);
  });
}

async function runTransaction<T>(stores: string[], mode: IDBTransactionMode, operation: (transaction: IDBTransaction) => IDBRequest): Promise<T> {
  const database = await openDatabase();
  try {
    return await new Promise<T>((resolve, reject) => {
      const transaction = database.transaction(stores, mode);
      const request = operation(transaction);
      transaction.oncomplete = () => resolve(request.result as T);
      transaction.onerror = transaction.onabort = () => reject(transaction.error ?? new Error("The browser's database failed."));
    });
  } finally {
    database.close();
  }
}

function openDatabase(): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, 2);
    request.onupgradeneeded = () => {
      request.result.createObjectStore(SUMMARIES, { keyPath: "id" });
      request.result.createObjectStore(SESSIONS, { keyPath: "id" });
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error("The browser's database cannot be opened."));
  });
}
