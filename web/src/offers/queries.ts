// Offers as the gateway knows them, and the writes on them. Codes are in none but the answer that
// made them.

import { keepPreviousData, useQuery, useQueryClient } from "@tanstack/react-query";
import { get, post, remove } from "../api/client";
import type { Offer, OfferMade, Page } from "../api/types";

/** Milliseconds between two looks: no feed tells that a code was used. */
const LOOK = 3000;

export const useOffers = (running: boolean, page: number) =>
  useQuery({
    queryKey: ["offers", running, page],
    queryFn: ({ signal }) =>
      get<Page<Offer>>("/api/v1/offers", { query: { running, page, page_size: 50 }, signal }),
    placeholderData: keepPreviousData,
    refetchInterval: LOOK,
    staleTime: 0,
  });

/** One offer, looked at until it is over. */
export const useOffer = (made: OfferMade) =>
  useQuery({
    queryKey: ["offer", made.id],
    queryFn: () => get<Offer>("/api/v1/offers/{offer_id}", { path: { offer_id: made.id } }),
    refetchInterval: LOOK,
    initialData: made as Offer,
  });

export function useOfferWrites() {
  const queries = useQueryClient();
  const settle = () => queries.invalidateQueries({ queryKey: ["offers"] });
  return {
    async create(body: Record<string, unknown>) {
      const made = await post<OfferMade>("/api/v1/offers", { body });
      void settle();
      return made;
    },
    async end(id: string) {
      await remove("/api/v1/offers/{offer_id}", { path: { offer_id: id } });
      await settle();
    },
  };
}
