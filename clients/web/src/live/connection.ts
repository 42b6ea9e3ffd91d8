/**
 * The connection to `/v1/live`: numbers what it sends, keeps it until it is acknowledged, and connects again where the
 * net was lost, so that nothing is lost with it.
 */

import { strings } from "../i18n/en";
import type { Limits, ServerMessage, StartMessage } from "./messages";
import { SUBPROTOCOL } from "./messages";

export type ConnectionState = "connecting" | "live" | "reconnecting" | "recovering" | "finishing" | "ended";

export interface ConnectionEvents {
  state: (state: ConnectionState) => void;
  message: (message: ServerMessage) => void;
  /** The end; empty where it is the one that was asked for. */
  ended: (reason: string) => void;
}

interface PendingChunk {
  sequence: number;
  bytes: ArrayBuffer;
}

const PING_MS = 5_000;
// A connection that says nothing for so long, not even to a ping, is dead.
const SILENCE_MS = 16_000;
const RECONNECT_LIMIT_MS = 28_000;
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
  private timer = 0;
  private retry = 0;

  constructor(
    private readonly url: string,
    private readonly start: StartMessage,
    private readonly events: ConnectionEvents,
  ) {
    events.state("connecting");
    this.connect();
    this.timer = window.setInterval(() => this.heartbeat(), PING_MS);
  }

  /** Send the next piece of media. */
  send(bytes: ArrayBuffer): void {
    if (this.isClosed || this.isStopped || !bytes.byteLength) return;
    const most = this.limits?.message_bytes ?? 256 * 1024;
    for (let at = 0; at < bytes.byteLength; at += most) {
      const piece = { sequence: ++this.sequence, bytes: bytes.slice(at, at + most) };
      this.pending.push(piece);
      this.pendingBytes += piece.bytes.byteLength;
      if (this.session && this.isOpen) this.sendChunk(piece);
    }
    if (this.limits && this.pendingBytes > this.limits.unacknowledged_bytes) this.end(strings.live.lostForGood);
  }

  /** No more media comes: what is still to be read is read. */
  stop(): void {
    if (this.isStopped || this.isClosed) return;
    this.isStopped = true;
    this.events.state("finishing");
    if (this.session && this.isOpen) this.sendMessage({ type: "stop" });
  }

  /** Leave at once. */
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
      // After connecting again, what came before may come once more.
      if (message.event <= this.lastEvent) return;
      this.lastEvent = message.event;
    }
    switch (message.type) {
      case "ready":
        this.session = { id: message.session, key: message.key };
        this.limits = message.limits;
        this.attempts = this.disconnectedAtMs = 0;
        this.acknowledge(message.received);
        for (const piece of this.pending) this.sendChunk(piece);
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
    if (now - this.disconnectedAtMs > RECONNECT_LIMIT_MS || (!this.session && this.attempts >= 2)) {
      this.end(this.session ? strings.live.lostForGood : strings.problems.offline);
      return;
    }
    this.events.state(this.session ? "reconnecting" : "connecting");
    const afterMs = BACKOFF_MS[Math.min(this.attempts++, BACKOFF_MS.length - 1)]!;
    this.retry = window.setTimeout(() => this.connect(), afterMs * (0.75 + Math.random() / 2));
  }

  private heartbeat(): void {
    if (!this.isOpen) return;
    if (performance.now() - this.lastReceivedMs > SILENCE_MS) {
      const silent = this.socket!;
      this.socket!.close();
      // A dead connection's close may take a minute to be known.
      this.onClose(silent);
      return;
    }
    this.sendMessage({ type: "ping", last_event: this.lastEvent });
  }

  private acknowledge(received: number): void {
    while (this.pending.length && this.pending[0]!.sequence <= received) this.pendingBytes -= this.pending.shift()!.bytes.byteLength;
  }

  private sendChunk(piece: PendingChunk): void {
    const message = new Uint8Array(4 + piece.bytes.byteLength);
    new DataView(message.buffer).setUint32(0, piece.sequence);
    message.set(new Uint8Array(piece.bytes), 4);
    this.socket!.send(message);
  }

  private sendMessage(message: object): void {
    this.socket!.send(JSON.stringify(message));
  }

  private end(reason: string): void {
    if (this.isClosed) return;
    this.isClosed = true;
    window.clearInterval(this.timer);
    window.clearTimeout(this.retry);
    this.socket?.close();
    this.pending = [];
    this.events.state("ended");
    this.events.ended(reason);
  }
}
