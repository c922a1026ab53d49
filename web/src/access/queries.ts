// Users and API keys.

import { useQuery } from "@tanstack/react-query";
import { get, patch, post, remove } from "../api/client";
import type { ApiKey, Page, Role, User } from "../api/types";
import { useAccount } from "../app/account";

export function useUsers() {
  const { role } = useAccount();
  return useQuery({
    queryKey: ["users"],
    enabled: role !== "user",
    queryFn: async () =>
      (await get<Page<User>>("/api/v1/users", { query: { page_size: 200 } })).items,
  });
}

export const createUser = (body: { username: string; password: string; role: Role }) =>
  post<User>("/api/v1/users", { body });
export const changeUser = (
  id: string,
  body: { disabled?: boolean; role?: Role; password?: string },
) => patch<User>("/api/v1/users/{user_id}", { path: { user_id: id }, body });
export const changePassword = (body: { old: string; new: string }) =>
  post("/api/v1/auth/password", { body });

export const useApiKeys = () =>
  useQuery({
    queryKey: ["api-keys"],
    queryFn: async () =>
      (await get<Page<ApiKey>>("/api/v1/api-keys", { query: { page_size: 100 } })).items,
  });
export const createApiKey = (body: { name: string; expires_in?: number }) =>
  post<ApiKey>("/api/v1/api-keys", { body });
export const revokeApiKey = (id: string) =>
  remove("/api/v1/api-keys/{key_id}", { path: { key_id: id } });
