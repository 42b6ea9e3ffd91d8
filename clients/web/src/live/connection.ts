/**
 * The connection to `/v1/live`: numbers what it sends, keeps it until it is acknowledged, and connects again where the
 * net was lost, so that nothing is lost with it.
 */

import { strings } from "../strings";
import type { Limits, ServerMessage, StartMessage } from "./messages";
import { SUBPROTOCOL } from "./messages";

export type ConnectionState = "connecting" | "live" | "reconnecting" | "recovering" | "finishing" | "ended";

export interface ConnectionEvents {
  state: (state: ConnectionState) => void;
  message: (message: ServerMessage) => void;
  /** The end; empty where it is the one that was asked for. */
  ended: (reason: string) => void;
}

interface Kept {
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
  private kept: Kept[] = [];
  private keptBytes = 0;
  private sequence = 0;
  private lastEvent = 0;
  private lastHeardMs = 0;
  private attempts = 0;
  private lostAtMs = 0;
  private isStopped = false;
  private isOver = false;
  private timer = 0;
  private retry = 0;

  constructor(
    private readonly url: string,
    private readonly start: StartMessage,
    private readonly events: ConnectionEvents,
  ) {
    events.state("connecting");
    this.connect();
    this.timer = window.setInterval(() => this.beat(), PING_MS);
  }

  /** Send the next piece of media. */
  send(bytes: ArrayBuffer): void {
    if (this.isOver || this.isStopped || !bytes.byteLength) return;
    const most = this.limits?.message_bytes ?? 256 * 1024;
    for (let at = 0; at < bytes.byteLength; at += most) {
      const piece = { sequence: ++this.sequence, bytes: bytes.slice(at, at + most) };
      this.kept.push(piece);
      this.keptBytes += piece.bytes.byteLength;
      if (this.session && this.isOpen) this.write(piece);
    }
    if (this.limits && this.keptBytes > this.limits.unacknowledged_bytes) this.end(strings.live.lostForGood);
  }

  /** No more media comes: what is still to be read is read. */
  stop(): void {
    if (this.isStopped || this.isOver) return;
    this.isStopped = true;
    this.events.state("finishing");
    if (this.session && this.isOpen) this.tell({ type: "stop" });
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
    this.lastHeardMs = performance.now();
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      const { token } = this.start;
      this.tell(this.session ? { type: "resume", session: this.session.id, key: this.session.key, last_event: this.lastEvent, ...(token ? { token } : {}) } : this.start);
    };
    socket.onmessage = (event: MessageEvent<string>) => this.hear(JSON.parse(event.data) as ServerMessage);
    socket.onclose = () => this.lost(socket);
  }

  private hear(message: ServerMessage): void {
    this.lastHeardMs = performance.now();
    if (message.event !== undefined) {
      // After connecting again, what came before may come once more.
      if (message.event <= this.lastEvent) return;
      this.lastEvent = message.event;
    }
    switch (message.type) {
      case "ready":
        this.session = { id: message.session, key: message.key };
        this.limits = message.limits;
        this.attempts = this.lostAtMs = 0;
        this.forget(message.received);
        for (const piece of this.kept) this.write(piece);
        if (this.isStopped) this.tell({ type: "stop" });
        this.events.state(this.isStopped ? "finishing" : "live");
        break;
      case "ack":
        this.forget(message.received);
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

  private lost(socket: WebSocket): void {
    if (this.isOver || socket !== this.socket) return;
    const now = performance.now();
    this.lostAtMs ||= now;
    if (now - this.lostAtMs > RECONNECT_LIMIT_MS || (!this.session && this.attempts >= 2)) {
      this.end(this.session ? strings.live.lostForGood : strings.problems.offline);
      return;
    }
    this.events.state(this.session ? "reconnecting" : "connecting");
    const afterMs = BACKOFF_MS[Math.min(this.attempts++, BACKOFF_MS.length - 1)]!;
    this.retry = window.setTimeout(() => this.connect(), afterMs * (0.75 + Math.random() / 2));
  }

  private beat(): void {
    if (!this.isOpen) return;
    if (performance.now() - this.lastHeardMs > SILENCE_MS) {
      const silent = this.socket!;
      this.socket!.close();
      // A dead connection's close may take a minute to be known.
      this.lost(silent);
      return;
    }
    this.tell({ type: "ping", last_event: this.lastEvent });
  }

  private forget(received: number): void {
    while (this.kept.length && this.kept[0]!.sequence <= received) this.keptBytes -= this.kept.shift()!.bytes.byteLength;
  }

  private write(piece: Kept): void {
    const message = new Uint8Array(4 + piece.bytes.byteLength);
    new DataView(message.buffer).setUint32(0, piece.sequence);
    message.set(new Uint8Array(piece.bytes), 4);
    this.socket!.send(message);
  }

  private tell(message: object): void {
    this.socket!.send(JSON.stringify(message));
  }

  private end(reason: string): void {
    if (this.isOver) return;
    this.isOver = true;
    window.clearInterval(this.timer);
    window.clearTimeout(this.retry);
    this.socket?.close();
    this.kept = [];
    this.events.state("ended");
    this.events.ended(reason);
  }
}
