"""Every limit of the server, in one place, with its unit."""

from __future__ import annotations

from pydantic import Field

from koser.config import Config
from koser.engines.local import available_cores

_MIB = 2**20


class ServeConfig(Config):
    """Settings of `koser serve`; each can be given as ``--set NAME=VALUE``."""

    # Probability that a label needs where a request says nothing else; 0 for never abstaining.
    threshold: float = Field(0.0, ge=0, le=1)

    # What one request may cost.
    max_upload_bytes: int = Field(64 * _MIB, gt=0)  # of a request's body
    max_predict_seconds: float = Field(120.0, gt=0)  # of sound in a prediction
    max_timeline_seconds: float = Field(3600.0, gt=0)  # of sound in a timeline
    upload_timeout: float = Field(60.0, gt=0)  # seconds for a body to arrive
    decode_timeout: float = Field(20.0, gt=0)  # seconds until a decoder is killed
    predict_timeout: float = Field(60.0, gt=0)  # seconds from a decoded clip to its result
    timeline_timeout: float = Field(600.0, gt=0)  # seconds from a decoded recording to its result
    explain_timeout: float = Field(300.0, gt=0)  # seconds from a decoded recording to its evidence

    # What all requests together may cost.
    max_buffered_bytes: int = Field(512 * _MIB, gt=0)  # of uploads held at once
    max_decoding: int = Field(256, gt=0)  # uploads that wait for a decoder
    max_waiting: int = Field(128, gt=0)  # decoded clips that wait for the model
    max_timelines: int = Field(4, gt=0)  # timelines made at once
    max_explanations: int = Field(4, gt=0)  # explanations made at once
    max_streams: int = Field(16, gt=0)  # WebSockets open at once
    retry_after: int = Field(1, gt=0)  # seconds that a refused client is told to wait

    # Decoding happens in processes of its own, which may crash, hang or run out of memory.
    n_decoders: int = Field(default_factory=lambda: max(1, available_cores() - 1), gt=0)
    decoder_memory: int = Field(2048 * _MIB, ge=256 * _MIB)  # bytes of address space of each

    # Clips that are computed together. 1 switches batching off.
    max_batch: int = Field(32, gt=0)  # clips
    max_batch_seconds: float = Field(120.0, gt=0)  # clips times the longest of them

    # Streams.
    stream_idle_timeout: float = Field(30.0, gt=0)  # seconds without a message
    max_stream_seconds: float = Field(3600.0, gt=0)  # of sound in one stream
    max_message_bytes: int = Field(_MIB, gt=0)  # of one WebSocket message

    # Speaker enrolment: what is held of a voice are sums of features, tens of kilobytes.
    max_enrolments: int = Field(1000, gt=0)  # held at once
    max_enrolment_utterances: int = Field(20, gt=0)  # sounds that one is made of
    enrolment_seconds: float = Field(3600.0, gt=0)  # without use, until one is forgotten

    # Ending.
    drain_seconds: float = Field(0.0, ge=0)  # /readyz refuses, everything else still answers
    shutdown_timeout: int = Field(30, gt=0)  # seconds for what is held to finish after that
