/** One address, or several of the same resource at different gateways: the next is tried on failure. */
export type Addresses = string | URL | readonly (string | URL)[];
/** Headers for each request, or a function that is asked before each: a token may have expired. */
export type RequestHeaders =
  | Record<string, string>
  | (() => Record<string, string> | Promise<Record<string, string>>);

/** What comes with an event. */
export interface Meta {
  /** The event's id, if it has one. The module stores it, and resumes there. */
  readonly id?: string;
  /** The record's entity tag, for `ifMatch`; null if the event shows no record. */
  readonly etag: string | null;
  /** The event's name: `message`, or the name that the route gives to its events. */
  readonly name: string;
}
/** Records that can't be delivered: offsets from `from` to below `to`, if they are known. */
export interface Gap {
  readonly partition?: number;
  readonly from?: number;
  readonly to?: number;
  readonly reason:
    | "unreadable"
    | "recreated"
    | "retention"
    | "undecodable"
    | "tombstones"
    | "truncated";
}
/** A deleted key. `key_base64` instead of `key` if the key is not UTF-8. */
export interface Delete {
  readonly key?: string | null;
  readonly key_base64?: string;
}
export type State = "connecting" | "open" | "waiting" | "failed" | "closed";

export interface StreamOptions<T = unknown> {
  /** A record. `data` is parsed JSON, the text if it is not JSON, or bytes if it is not UTF-8. */
  event?(data: T, meta: Meta): void;
  /** Something can't be delivered: the page may have to read its state again. */
  gap?(gap: Gap, meta: Meta): void;
  /** A key was deleted (compacted topics). */
  delete?(deleted: Delete, meta: Meta): void;
  /** The stream's position, without a record. */
  position?(nothing: unknown, meta: Meta): void;
  /** The credential expires: renew the login. The next connection waits for the promise. */
  challenge?(): void | Promise<void>;
  /** The connection. `resumedFrom` is the id that was or will be sent, null for a fresh start. */
  state?(state: State, about: { resumedFrom: string | null; url?: string }): void;
  /** The gateway refuses the stream for good (403, 404, …): it does not try again. */
  error?(error: Error & { status?: number; body?: unknown }): void;
  headers?: RequestHeaders;
  credentials?: RequestCredentials;
  /** Under which the last id is stored. By default the first address. */
  name?: string;
  /** Where the last id is stored. By default `sessionStorage`: it survives a reload of the tab. */
  storage?: { getItem(name: string): string | null; setItem(name: string, id: string): void };
  /** After this many ms without a byte the connection counts as dead. 45,000 by default. */
  silence?: number;
}
export interface Stream {
  close(): void;
  readonly state: State;
  readonly lastId: string | null;
  /** The entity tag of the newest record that the stream has shown. */
  readonly etag: string | null;
}
export function stream<T = unknown>(urls: Addresses, options?: StreamOptions<T>): Stream;

/** One attempt that did not succeed, before the next. */
export interface Retry {
  readonly attempts: number;
  readonly why: string;
  /** How long the attempt took in ms. */
  readonly took: number;
  /** Time to the next attempt in ms. */
  readonly wait: number;
  readonly url: string;
  readonly answer?: Answer;
}
export interface CommandOptions {
  method?: "POST" | "PUT" | "PATCH" | "DELETE";
  /** Sent as JSON; strings and bytes as they are. */
  body?: unknown;
  headers?: RequestHeaders;
  /** The idempotency key. By default a new one. */
  key?: string;
  /** An entity tag, an event id, or `*`. */
  ifMatch?: string | null;
  credentials?: RequestCredentials;
  /** Ends the wait. The command may take effect all the same. */
  signal?: AbortSignal;
  /** Time for all attempts in ms. 30,000 by default. */
  timeout?: number;
  /** Time for one attempt in ms. 15,000 by default. */
  attemptTimeout?: number;
  /** Called before each further attempt. */
  retry?(retry: Retry): void;
  /** The gateway answers 401: renew the login. The command is then sent once more. */
  challenge?(): void | Promise<void>;
}
export interface Answer<T = unknown> {
  readonly ok: boolean;
  readonly status: number;
  /** The body, parsed if it is JSON. Problems (RFC 9457) have `type`, `title` and `detail`. */
  readonly body: T;
  readonly etag: string | null;
  readonly headers: Headers;
  readonly key: string;
  /** How often the command was sent. */
  readonly attempts: number;
  /** The reply to an earlier attempt. */
  readonly replayed: boolean;
  readonly url: string;
}
export function command<T = unknown>(urls: Addresses, options?: CommandOptions): Promise<Answer<T>>;
export function newKey(): string;
