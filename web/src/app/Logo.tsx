// The mark: a road above, a way beneath.

export const Logo = ({ size }: { size: number }) => (
  <svg width={size} height={size} viewBox="0 0 32 32" aria-hidden="true">
    <rect width="32" height="32" rx="8" fill="#12806a" />
    <path d="M6 12h20" stroke="#fff" strokeWidth="3" strokeLinecap="round" />
    <path
      d="M9 25v-2a7 7 0 0 1 14 0v2"
      fill="none"
      stroke="#fff"
      strokeWidth="3"
      strokeLinecap="round"
    />
  </svg>
);
