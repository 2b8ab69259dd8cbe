"""Prometheus' text format from several sources: this process' metrics, and texts that workers published."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector


@dataclass(frozen=True)
class MetricSource:
    families: Iterable[Metric]
    labels: Mapping[str, str]  # added to every sample


def own(registry: CollectorRegistry, **labels: str) -> MetricSource:
    return MetricSource(registry.collect(), labels)


def published(worker: str, text: str) -> MetricSource:
    return MetricSource(text_string_to_metric_families(text), {"worker": worker})


def expose(*sources: MetricSource) -> bytes:
    """Every family once, with the samples of all sources."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Merged(sources))
    return generate_latest(registry)


class Labelled(Collector):
    """A registry's metrics with labels added, collected anew at each scrape."""

    def __init__(self, registry: CollectorRegistry, **labels: str) -> None:
        self._registry = registry
        self._labels = labels

    def collect(self) -> Iterator[Metric]:
        return _Merged([own(self._registry, **self._labels)]).collect()

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance: the names were checked where they were declared."""
        return ()


class _Merged(Collector):
    def __init__(self, sources: Iterable[MetricSource]) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for source in self._sources:
            for family in source.families:
                known = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    # When a counter was made tells Prometheus nothing that a restart does not, and doubles the series.
                    if not sample.name.endswith("_created"):
                        known.add_sample(sample.name, {**sample.labels, **source.labels}, sample.value)
        yield from (family for family in families.values() if family.samples)
