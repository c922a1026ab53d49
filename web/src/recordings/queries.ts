// Recordings and what is inside them.

import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { get, remove } from "../api/client";
import type { Page, Recording, RecordingIndex } from "../api/types";

export interface RecordingFilter {
  text?: string;
  asset_id?: string;
  session_id?: string;
  page?: number;
}

export const useRecordings = (filter: RecordingFilter) =>
  useQuery({
    queryKey: ["recordings", filter],
    queryFn: ({ signal }) =>
      get<Page<Recording>>("/api/v1/recordings", {
        query: { sort: "-started_at", page_size: 25, ...filter },
        signal,
      }),
    placeholderData: keepPreviousData,
  });

export const useRecording = (id: string) =>
  useQuery({
    queryKey: ["recordings", "one", id],
    queryFn: () =>
      get<Recording>("/api/v1/recordings/{recording_id}", { path: { recording_id: id } }),
  });

export const useRecordingIndex = (id: string) =>
  useQuery({
    queryKey: ["recordings", "index", id],
    queryFn: () =>
      get<RecordingIndex>("/api/v1/recordings/{recording_id}/index", {
        path: { recording_id: id },
      }),
    staleTime: Number.POSITIVE_INFINITY,
  });

export const castAddress = (id: string): string =>
  `/api/v1/recordings/${encodeURIComponent(id)}/cast`;

export const deleteRecording = (id: string) =>
  remove("/api/v1/recordings/{recording_id}", { path: { recording_id: id } });
