/** Live sessions that were kept: in this browser's own database, and nowhere else. */

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

const NAME = "gorggle";
const HEADS = "heads";
const BODIES = "bodies";

/** All of them, newest first, without their recordings. */
export async function listSessions(): Promise<SessionSummary[]> {
  const heads = await inStore<SessionSummary[]>([HEADS], "readonly", (transaction) => transaction.objectStore(HEADS).getAll());
  return heads.sort((a, b) => b.createdAt.localeCompare(a.createdAt));
}

export async function loadSession(id: string): Promise<Session | null> {
  return (await inStore<Session | undefined>([BODIES], "readonly", (transaction) => transaction.objectStore(BODIES).get(id))) ?? null;
}

export async function saveSession(session: Session): Promise<void> {
  const { result: _result, names: _names, recording: _recording, ...head } = session;
  await inStore([HEADS, BODIES], "readwrite", (transaction) => {
    transaction.objectStore(HEADS).put(head);
    return transaction.objectStore(BODIES).put(session);
  });
}

export async function deleteSession(id: string): Promise<void> {
  await inStore([HEADS, BODIES], "readwrite", (transaction) => {
    transaction.objectStore(HEADS).delete(id);
    return transaction.objectStore(BODIES).delete(id);
  });
}

async function inStore<T>(stores: string[], mode: IDBTransactionMode, act: (transaction: IDBTransaction) => IDBRequest): Promise<T> {
  const database = await open();
  try {
    return await new Promise<T>((resolve, reject) => {
      const transaction = database.transaction(stores, mode);
      const request = act(transaction);
      transaction.oncomplete = () => resolve(request.result as T);
      transaction.onerror = transaction.onabort = () => reject(transaction.error ?? new Error("the browser's database failed"));
    });
  } finally {
    database.close();
  }
}

function open(): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore(HEADS, { keyPath: "id" });
      request.result.createObjectStore(BODIES, { keyPath: "id" });
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error("the browser's database cannot be opened"));
  });
}
