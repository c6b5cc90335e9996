"""The figures of /metrics, in a registry of the app's own (prometheus.io/docs/practices/naming)."""

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

FIRST_TOKEN = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)  # seconds
PICTURE = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
GAUGES = {
    "waiting": "Drawings and answers that wait for rows.",
    "running": "Drawings and answers that run.",
    "rows_used": "Rows of the batch in use.",
    "rows": "Rows of the batch.",
}
TOTALS = {"tokens": "Tokens of answers and pictures.", "pictures": "Pictures drawn."}


class Metrics:
    """What is counted. service: whose engine tells the rest, once it is there."""

    def __init__(self, service):
        self.service = service
        self.registry = CollectorRegistry()
        made = lambda kind, name, about, *labels, **how: kind(
            f"janus_jax_{name}", about, labels, registry=self.registry, **how
        )
        self.requests = made(Counter, "requests", "Requests that were answered.", "route", "status")
        self.refusals = made(Counter, "refusals", "Requests that were refused.", "cause")
        self.first_token = made(
            Histogram, "first_token_seconds", "From a request to the first words of an answer that streams.",
            buckets=FIRST_TOKEN,
        )  # fmt: skip
        self.picture = made(
            Histogram, "picture_seconds", "From a request to a whole picture.", buckets=PICTURE
        )
        self.registry.register(self)

    def collect(self):
        """What Prometheus asks for at each look."""
        of = lambda kind, name, about, value: kind(f"janus_jax_{name}", about, value=value)
        yield of(GaugeMetricFamily, "requests_open", "Requests being served.", self.service.open)
        ready = float(self.service.is_ready)
        yield of(GaugeMetricFamily, "ready", "1 while requests are taken.", ready)
        if self.service.engine is None:
            return
        counts = self.service.engine.counts()
        for name, about in GAUGES.items():
            yield of(GaugeMetricFamily, name, about, counts[name])
        for name, about in TOTALS.items():
            yield of(CounterMetricFamily, name, about, counts[name])
