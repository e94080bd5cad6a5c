"""What a metric of this process stands at."""

from prometheus_client.metrics import MetricWrapperBase


def value(metric: MetricWrapperBase) -> float:
    """The value of a counter or gauge; of one with labels, `metric` is what `labels(…)` returned."""
    [family] = metric.collect()
    return family.samples[0].value
