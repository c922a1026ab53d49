"""The metrics of a process in the Prometheus text format."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from underpass.core import metrics


def test_every_metric_is_ours_and_the_text_parses() -> None:
    metrics.LINKS.labels(role="agent").inc()
    metrics.LINKS.labels(role="agent").dec()
    families = {family.name for family in text_string_to_metric_families(metrics.render().decode())}
    assert "underpass_links" in families
    assert all(name.startswith("underpass_") for name in families)
    assert metrics.CONTENT_TYPE.startswith("text/plain")
