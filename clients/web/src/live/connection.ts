/**
 * WebSocket client of `/v1/live`. Media chunks are numbered and buffered until they are acknowledged, so that the session
 * resumes without loss after a reconnect.
 */

import { strings } from "../i18n/en";
import type { Limits, ServerMessage, StartMessage } from "./messages";
import { SUBPROTOCOL } from "./messages";

export type ConnectionState = "connecting" | "live" | "reconnecting" | "recovering" | "finishing" | "ended";

export interface ConnectionEvents {
  state: (state: ConnectionState) => void;
  message: (message: ServerMessage) => void;
  /** Called once at the end; the reason is empty after a regular end. */
  ended: (reason: string) => void;
}

interface PendingChunk {
  sequence: number;
  bytes: ArrayBuffer;
}

const PING_MS = 5_000;
// Without any message for this long, not even a pong, the connection is considered lost.
const SILENCE_TIMEOUT_MS = 16_000;
const RECONNECT_TIMEOUT_MS = 28_000;
const BACKOFF_MS = [200, 500, 1000, 2000, 4000];

export class LiveConnection {
  private socket: WebSocket | null = null;
  private session: { id: string; key: string } | null = null;
  private limits: Limits | null = null;
  private pending: PendingChunk[] = [];
  private pendingBytes = 0;
  private sequence = 0;
  private lastEvent = 0;
  private lastReceivedMs = 0;
  private attempts = 0;
  private disconnectedAtMs = 0;
  private isStopped = false;
  private isClosed = false;
  private pingTimer = 0;
  private retryTimer = 0;

  constructor(
    private readonly url: string,
    private readonly start: StartMessage,
    private readonly events: ConnectionEvents,
  ) {
    events.state("connecting");
    this.connect();
    this.pingTimer = window.setInterval(() => this.heartbeat(), PING_MS);
  }

  /** Send media. */
  send(bytes: ArrayBuffer): void {
    if (this.isClosed || this.isStopped || !bytes.byteLength) return;
    const maxBytes = this.limits?.message_bytes ?? 256 * 1024;
    for (let offset = 0; offset < bytes.byteLength; offset += maxBytes) {
      const chunk = { sequence: ++this.sequence, bytes: bytes.slice(offset, offset + maxBytes) };
      this.pending.push(chunk);
      this.pendingBytes += chunk.bytes.byteLength;
      if (this.session && this.isOpen) this.sendChunk(chunk);
    }
    if (this.limits && this.pendingBytes > this.limits.unacknowledged_bytes) this.end(strings.live.connectionLost);
  }

  /** Signal the end of the media; results of what was sent still arrive. */
  stop(): void {
    if (this.isStopped || this.isClosed) return;
    this.isStopped = true;
    this.events.state("finishing");
    if (this.session && this.isOpen) this.sendMessage({ type: "stop" });
  }

  /** Close immediately, discarding pending results. */
  close(): void {
    this.end("");
  }

  private get isOpen(): boolean {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  private connect(): void {
    const socket = new WebSocket(this.url, SUBPROTOCOL);
    this.socket = socket;
    this.lastReceivedMs = performance.now();
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      const { token } = this.start;
      this.sendMessage(this.session ? { type: "resume", session: this.session.id, key: this.session.key, last_event: this.lastEvent, ...(token ? { token } : {}) } : this.start);
    };
    socket.onmessage = (event: MessageEvent<string>) => this.onMessage(JSON.parse(event.data) as ServerMessage);
    socket.onclose = () => this.onClose(socket);
  }

  private onMessage(message: ServerMessage): void {
    this.lastReceivedMs = performance.now();
    if (message.event !== undefined) {
      // Events may be repeated after a reconnect.
      if (message.event <= this.lastEvent) return;
      this.lastEvent = message.event;
    }
    switch (message.type) {
      case "ready":
        this.session = { id: message.session, key: message.key };
        this.limits = message.limits;
        this.attempts = this.disconnectedAtMs = 0;
        this.acknowledge(message.received);
        for (const chunk of this.pending) this.sendChunk(chunk);
        if (this.isStopped) this.sendMessage({ type: "stop" });
        this.events.state(this.isStopped ? "finishing" : "live");
        break;
      case "ack":
        this.acknowledge(message.received);
        break;
      case "recovering":
        this.events.state("recovering");
        break;
      case "recovered":
        this.events.state(this.isStopped ? "finishing" : "live");
        break;
      case "finished":
        this.events.message(message);
        this.end("");
        return;
      case "error":
        this.end(message.message);
        return;
    }
    this.events.message(message);
  }

  private onClose(socket: WebSocket): void {
    if (this.isClosed || socket !== this.socket) return;
    const now = performance.now();
    this.disconnectedAtMs ||= now;
    if (now - this.disconnectedAtMs > RECONNECT_TIMEOUT_MS || (!this.session && this.attempts >= 2)) {
      this.end(this.session ? strings.live.connectionLost : strings.problems.offline);
      return;
    }
    this.events.state(this.session ? "reconnecting" : "connecting");
    const backoffMs = BACKOFF_MS[Math.min(this.attempts++, BACKOFF_MS.length - 1)]!;
    this.retryTimer = window.setTimeout(() => this.connect(), backoffMs * (0.75 + Math.random() / 2));
  }

  private heartbeat(): void {
    if (!this.isOpen) return;
    if (performance.now() - this.lastReceivedMs > SILENCE_TIMEOUT_MS) {
      const socket = this.socket!;
      socket.close();
      // The close event of a lost connection may take a minute.
      this.onClose(socket);
      return;
    }
    this.sendMessage({ type: "ping", last_event: this.lastEvent });
  }

  private acknowledge(received: number): void {
    while (this.pending.length && this.pending[0]!.sequence <= received) this.pendingBytes -= this.pending.shift()!.bytes.byteLength;
  }

  private sendChunk(chunk: PendingChunk): void {
    const message = new Uint8Array(4 + chunk.bytes.byteLength);
    new DataView(message.buffer).setUint32(0, chunk.sequence);
    message.set(new Uint8Array(chunk.bytes), 4);
    this.socket!.send(message);
  }

  private sendMessage(message: object): void {
    this.socket!.send(JSON.stringify(message));
  }

  private end(reason: string): void {
    if (this.isClosed) return;
    this.isClosed = true;
    window.clearInterval(this.pingTimer);
    window.clearTimeout(this.retryTimer);
    this.socket?.close();
    this.pending = [];
    this.events.state("ended");
    this.events.ended(reason);
  }
}
