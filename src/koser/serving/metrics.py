"""What the server counts, for Prometheus. No label holds anything of a request's content."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_CLIPS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter(
            "koser_requests", "Requests answered.", ["route", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "koser_request_seconds",
            "From a request's first byte to its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.problems = Counter(
            "koser_problems", "Requests refused, by kind.", ["kind"], registry=registry
        )
        self.audio_seconds = Counter(
            "koser_audio_seconds", "Sound that was recognised.", ["route"], registry=registry
        )
        self.decode_seconds = Histogram(
            "koser_decode_seconds", "Decoding of an upload.", buckets=_SECONDS, registry=registry
        )
        self.decoders_lost = Counter(
            "koser_decoders_lost",
            "Decoders that crashed, or were killed because they took too long.",
            registry=registry,
        )
        self.batch_clips = Histogram(
            "koser_batch_clips", "Clips computed together.", buckets=_CLIPS, registry=registry
        )
        self.waiting = Gauge(
            "koser_waiting_clips", "Clips that wait for the model.", registry=registry
        )
        self.buffered_bytes = Gauge(
            "koser_buffered_bytes", "Uploads held at the moment.", registry=registry
        )
        self.enrolments = Gauge(
            "koser_enrolments", "Enrolments held at the moment.", registry=registry
        )
        self.enrolment_bytes = Gauge(
            "koser_enrolment_bytes", "Memory of the enrolments held.", registry=registry
        )
        self.streams = Gauge("koser_streams", "Streams open at the moment.", registry=registry)

    def render(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)
