"""Metric families, declared once: what a process exposes is what `docs/metrics.md` lists."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

M = TypeVar("M", Counter, Gauge, Histogram)


@dataclass(frozen=True)
class Family:
    """One line of the list. A counter's name ends in `_total`, as Prometheus shows it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


class Families:
    """Makes metrics in a registry of its own, and remembers what it made."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.declared: list[Family] = []
        self._metrics: list[Counter | Gauge | Histogram] = []

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        metric = Counter(name, text, labels, registry=self.registry)
        return self._declare(Family(f"{name}_total", "counter", labels, text), metric)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        metric = Gauge(name, text, labels, registry=self.registry)
        return self._declare(Family(name, "gauge", labels, text), metric)

    def histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        metric = Histogram(name, text, labels, buckets=buckets, registry=self.registry)
        return self._declare(Family(name, "histogram", labels, text), metric)

    def start(self, label: str, value: str) -> None:
        """Makes the series of one value of all families that have this label alone."""
        for family, metric in zip(self.declared, self._metrics):
            if family.labels == (label,):
                metric.labels(value)

    def _declare(self, family: Family, metric: M) -> M:
        self.declared.append(family)
        self._metrics.append(metric)
        return metric
