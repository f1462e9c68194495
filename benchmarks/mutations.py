"""Uploads that no honest client sends: mutated headers, cut files, or no sound at all."""

from __future__ import annotations

import contextlib
import http.client
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import soundfile

_FORMATS = (
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "FLOAT"),
    ("WAV", "ULAW"),
    ("WAV", "IMA_ADPCM"),
    ("RF64", "PCM_16"),
    ("W64", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("AU", "PCM_16"),
    ("CAF", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
)
# Beginnings of containers that are guessed from their first bytes.
_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"fLaC", b"OggS", b"ID3\x04", b"\xff\xfb\x90\x00", b"FORM",
          b"\x1a\x45\xdf\xa3", b"\0\0\0\x20ftypM4A ", b".snd", b"caff", b"#!AMR")  # fmt: skip
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_TYPES = ("audio/wav", "audio/flac", "audio/ogg", "audio/mpeg", "application/octet-stream",
          "video/webm", "audio/x-" + "a" * 200, "audio/;;;=", "AUDIO/WAV; rate=x")  # fmt: skip
_WRONG_TYPES = ("text/html", "application/json", "application/x-www-form-urlencoded", "image/png",
                "multipart/mixed; boundary=x", "multipart/form-data", "", "\xe4\xf6")  # fmt: skip
_QUERIES = ("", "", "", "?threshold=0.5", "?threshold=1e9", "?threshold=NaN", "?labels=angry",
            "?labels=%00&labels=%ff", "?labels=angry&labels=sadness", "?x=y", "?format=srt",
            "?format=exe", "?peaks=4000", "?peaks=-1", "?peaks=99999999999999999999",
            "?start=0.05&end=0.15", "?start=9", "?start=0.1&end=1e400")  # fmt: skip


@dataclass(frozen=True)
class Upload:
    """One request.

    Attributes
    ----------
    kind : str
        How it was made.
    path : str
        With its query.
    headers : dict[str, str]
        Of the request.
    body : bytes
        Of the request.
    """

    kind: str
    path: str
    headers: dict[str, str]
    body: bytes


def seeds() -> list[bytes]:
    """Whole sound files of every container and coding that there is a writer for."""
    rng = np.random.default_rng(0)
    files = []
    for container, subtype in _FORMATS:
        for rate, n_channels in ((16_000, 1), (44_100, 2)):
            if container == "OGG" and subtype == "OPUS":
                rate = 48_000
            buffer = io.BytesIO()
            waveform = rng.standard_normal((rate // 5, n_channels)) * 0.1
            soundfile.write(buffer, waveform, rate, subtype, format=container)
            files.append(buffer.getvalue())
    return files


def iter_uploads(
    n_uploads: int, *, seed: int = 0, files: Sequence[bytes] | None = None
) -> Iterator[Upload]:
    """Yield uploads made of `files`, by default `seeds`; the same for the same seed and files."""
    rng = np.random.default_rng(seed)
    files = seeds() if files is None else files
    kinds = {
        "header": lambda: _mutate_header(_pick(rng, files), rng),
        "bytes": lambda: _mutate_bytes(_pick(rng, files), rng),
        "cut": lambda: _cut(_pick(rng, files), rng),
        "spliced": lambda: _splice(_pick(rng, files), _pick(rng, files), rng),
        "random": lambda: rng.bytes(int(rng.integers(0, 5_000))),
        "magic": lambda: _pick(rng, _MAGIC) + rng.bytes(int(rng.integers(0, 3_000))),
        "whole": lambda: _pick(rng, files),
    }
    for _ in range(n_uploads):
        kind = _pick(rng, list(kinds))
        path = _pick(rng, ("/v1/predict", "/v1/predict", "/v1/timeline", "/v1/explain"))
        yield _wrap(kind, f"{path}{_pick(rng, _QUERIES)}", kinds[kind](), rng)


def send(connection: http.client.HTTPConnection, upload: Upload) -> tuple[int, str, bytes]:
    """Send one; returns status, media type and body of the answer.

    A connection that the server closed after a refusal is opened again.
    """
    connection.putrequest("POST", upload.path, skip_accept_encoding=True)
    for name, value in upload.headers.items():
        connection.putheader(name, value.encode("latin-1"))
    connection.putheader("Content-Length", str(len(upload.body)))
    connection.endheaders()
    # Where it is refused before it is read, the answer is there all the same.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.send(upload.body)
    response = connection.getresponse()
    body = response.read()
    if response.will_close:
        connection.close()
    return response.status, response.headers.get_content_type(), body


def _wrap(kind: str, path: str, content: bytes, rng: np.random.Generator) -> Upload:
    way = rng.integers(0, 10)
    if way < 5:
        return Upload(kind, path, {"Content-Type": _pick(rng, _TYPES)}, content)
    if way == 5:
        return Upload(
            f"{kind}, wrong type", path, {"Content-Type": _pick(rng, _WRONG_TYPES)}, content
        )
    if way == 6:
        headers = {"Content-Type": "audio/wav", "Content-Encoding": _pick(rng, ("gzip", "br", "x"))}
        return Upload(f"{kind}, encoded", path, headers, content)
    boundary = _pick(rng, ("x", "b" * 70, "----WebKitFormBoundary7MA4YWxkTrZu0gW"))
    field = _pick(rng, ("file", "file", "file", "file\\", "", "other", 'file"; name="x'))
    name = _pick(
        rng,
        (
            "a.wav",
            "../../etc/passwd",
            "a" * 300,
            "\xff\xfe",
            "한국어.wav".encode().decode("latin-1"),
        ),
    )
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
    )
    body = head.encode("latin-1") + content + f"\r\n--{boundary}--\r\n".encode()
    if way == 7:
        body = _pick(rng, (_cut, _mutate_header))(body, rng)
    return Upload(
        f"{kind}, form", path, {"Content-Type": f"multipart/form-data; boundary={boundary}"}, body
    )


def _pick(rng: np.random.Generator, options):  # of any kind
    return options[int(rng.integers(len(options)))]


def _mutate_header(content: bytes, rng: np.random.Generator) -> bytes:
    """Put numbers at the edges of integers into the first bytes, in both byte orders."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        width = int(_pick(rng, (1, 2, 4)))
        place = int(rng.integers(0, max(1, min(128, len(changed) - width))))
        number = int(_pick(rng, _NUMBERS)) & (256**width - 1)
        changed[place : place + width] = number.to_bytes(width, _pick(rng, ("little", "big")))
    return bytes(changed)


def _mutate_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    changed = np.frombuffer(content, np.uint8).copy()
    n_changed = int(rng.integers(1, max(2, len(changed) // 20)))
    places = rng.integers(0, len(changed), n_changed)
    changed[places] = rng.integers(0, 256, n_changed)
    return changed.tobytes()


def _cut(content: bytes, rng: np.random.Generator) -> bytes:
    first, last = sorted(rng.integers(0, len(content) + 1, 2).tolist())
    return content[: last if rng.integers(2) else first] if rng.integers(4) else content[first:last]


def _splice(one: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    return one[: int(rng.integers(0, len(one)))] + other[int(rng.integers(0, len(other))) :]
