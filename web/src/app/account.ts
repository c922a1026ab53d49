// Who is signed in: one query that every page shares, and the ways in and out.

import { type QueryClient, useQuery } from "@tanstack/react-query";
import { ApiError, get, post, setCsrfToken } from "../api/client";
import type { SignedIn, User } from "../api/types";

const ME = ["me"] as const;

async function fetchMe(): Promise<User | null> {
  try {
    const answer = await get<SignedIn>("/api/v1/auth/me");
    setCsrfToken(answer.csrf_token);
    return answer.user;
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) return null;
    throw error;
  }
}

export const useMe = () => useQuery({ queryKey: ME, queryFn: fetchMe, staleTime: 5 * 60_000 });

const adopt = (queries: QueryClient, answer: SignedIn): void => {
  setCsrfToken(answer.csrf_token);
  queries.setQueryData(ME, answer.user);
};

export async function signIn(queries: QueryClient, username: string, password: string) {
  adopt(queries, await post<SignedIn>("/api/v1/auth/login", { body: { username, password } }));
}

export async function setUp(
  queries: QueryClient,
  body: { code: string; username: string; password: string },
) {
  adopt(queries, await post<SignedIn>("/api/v1/setup", { body }));
}

export async function signOut(queries: QueryClient) {
  await post("/api/v1/auth/logout");
  setCsrfToken(null);
  forgetAccount(queries);
}

/** The login is over (signed out, expired, disabled): nothing of it may stay on screen. */
export function forgetAccount(queries: QueryClient): void {
  void queries.cancelQueries();
  // First this, and never by clear(): what is on screen would go on listening to queries that are gone.
  queries.setQueryData(ME, null);
  queries.removeQueries({ predicate: ({ queryKey }) => queryKey[0] !== ME[0] });
}

/** The account behind every page inside the shell; the guard has made sure that there is one. */
export function useAccount(): User {
  const { data } = useMe();
  if (!data) throw new Error("useAccount is for pages behind the sign-in guard");
  return data;
}

export const useIsAdmin = (): boolean => useAccount().role === "admin";

/** Where to go after signing in: a path of ours and nothing else (an open redirect otherwise). */
export function safeNext(next: string | null): string {
  if (!next?.startsWith("/") || next.startsWith("//") || next.includes("\\")) return "/";
  return next;
}
