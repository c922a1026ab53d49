// A bug in one page must not take the navigation (or the running terminals) down with it.

import { Component, type ReactNode } from "react";
import { ErrorState } from "./ErrorState";

export class Crash extends Component<{ children: ReactNode }, { error: unknown }> {
  override state: { error: unknown } = { error: null };

  static getDerivedStateFromError(error: unknown) {
    return { error };
  }

  override render() {
    if (this.state.error === null) return this.props.children;
    // A chunk that is gone usually means that the gateway was upgraded under an open page.
    return <ErrorState error={this.state.error} onRetry={() => window.location.reload()} />;
  }
}
