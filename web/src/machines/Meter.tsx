// A share of something as a thin bar with its number.

import { percent } from "../app/format";

export function Meter({ label, value }: { label: string; value: number | undefined }) {
  if (value === undefined) return <span className="meter-none">–</span>;
  const level = value >= 90 ? "high" : value >= 70 ? "raised" : "normal";
  return (
    <span className="meter" role="img" aria-label={`${label} ${percent(value)}`}>
      <span className="meter-track">
        <span
          className="meter-fill"
          data-level={level}
          // A transform is the one inline style a strict CSP lets script set, and costs no layout.
          style={{ transform: `scaleX(${Math.min(100, Math.max(0, value)) / 100})` }}
        />
      </span>
      <span className="meter-number">{percent(value)}</span>
    </span>
  );
}
