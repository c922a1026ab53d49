// The labels an admin gave a machine, as small tags; more than a few are counted.

import { labelsToText } from "./machine";

export function Labels({ labels, max = 3 }: { labels: Record<string, string>; max?: number }) {
  const all = labelsToText(labels);
  const hidden = all.slice(max);
  return (
    <span className="labels">
      {all.slice(0, max).map((label) => (
        <span key={label} className="label-tag" title={label}>
          {label}
        </span>
      ))}
      {hidden.length > 0 && (
        <span className="label-tag" title={hidden.join(", ")}>
          +{hidden.length}
        </span>
      )}
    </span>
  );
}
