// The one way to the gateway's API: typed paths from our OpenAPI, cookie sign-in, CSRF token on
// writes, the envelope taken off, and every failure an ApiError that can say what to do next.

import createClient from "openapi-fetch";
import { translate } from "../i18n";
import type { paths } from "./schema";

type Method = "get" | "post" | "put" | "patch" | "delete";
/** Paths of our OpenAPI that answer to `M`; a typing error in a path does not compile. */
export type PathOf<M extends Method> = {
  [P in keyof paths]: paths[P] extends { [K in M]: infer Operation }
    ? [Operation] extends [undefined | never]
      ? never
      : P
    : never;
}[keyof paths] &
  string;

interface CallOptions {
  path?: Record<string, string>;
  query?: Record<string, string | number | boolean | undefined>;
  body?: unknown;
  signal?: AbortSignal;
}

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly hint?: string,
    readonly retryAfter?: number,
    /** What of the request was wrong, by its name in the API: `limits.bandwidth`. */
    readonly field?: string,
  ) {
    super(message);
    this.name = "ApiError";
  }

  /** What went wrong and what to do, in one text. */
  get explanation(): string {
    return this.hint ? `${this.message} ${this.hint}` : this.message;
  }
}

export const explain = (error: unknown): string =>
  error instanceof ApiError ? error.explanation : translate("error.unexpected");

// Kept in memory only: a cookie-authenticated write must carry it, and another origin cannot read it.
let csrfToken: string | null = null;
export const setCsrfToken = (token: string | null): void => {
  csrfToken = token;
};

const client = createClient<paths>({ baseUrl: "", credentials: "same-origin" });

async function call<T>(method: Method, path: string, options: CallOptions = {}): Promise<T> {
  const headers: Record<string, string> = {};
  if (method !== "get" && csrfToken) headers["X-CSRF-Token"] = csrfToken;
  let answer: { data?: unknown; error?: unknown; response: Response };
  try {
    answer = await client.request(
      method as never,
      path as never,
      {
        params: { path: options.path, query: options.query },
        body: options.body,
        headers,
        signal: options.signal,
      } as never,
    );
  } catch (cause) {
    if (cause instanceof DOMException && cause.name === "AbortError") throw cause;
    throw new ApiError(0, "network", translate("error.network"));
  }
  const { response } = answer;
  if (!response.ok) throw failure(response, answer.error);
  const body = answer.data as { success?: boolean; data?: unknown } | undefined;
  // Bare routes (approve, tty/authorize …) answer the thing itself; all others an envelope.
  return (body && typeof body === "object" && body.success === true ? body.data : body) as T;
}

function failure(response: Response, body: unknown): ApiError {
  const known = (typeof body === "object" && body !== null ? body : {}) as Record<string, unknown>;
  const retryAfter = Number(response.headers.get("Retry-After")) || undefined;
  return new ApiError(
    response.status,
    typeof known.code === "string" ? known.code : `http_${response.status}`,
    typeof known.message === "string"
      ? known.message
      : translate("error.status", { status: String(response.status) }),
    typeof known.hint === "string" ? known.hint : undefined,
    retryAfter,
    typeof known.field === "string" ? known.field : undefined,
  );
}

export const get = <T>(path: PathOf<"get">, options?: CallOptions) => call<T>("get", path, options);
export const post = <T>(path: PathOf<"post">, options?: CallOptions) =>
  call<T>("post", path, options);
export const patch = <T>(path: PathOf<"patch">, options?: CallOptions) =>
  call<T>("patch", path, options);
export const remove = <T>(path: PathOf<"delete">, options?: CallOptions) =>
  call<T>("delete", path, options);
