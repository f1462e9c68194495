"""Every refusal is an RFC 9457 problem that says what, why, and what next."""

import socket

import pytest

from fixtures.servers import assert_problem, running
from koser.errors import ConfigError
from koser.serving.gate import Keys
from koser.serving.problems import KINDS

KEY = "0123456789abcdef0123456789abcdef"


def form(*parts, boundary="b"):
    body = b""
    for disposition, content in parts:
        header = f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n"
        body += header.encode() + content + b"\r\n"
    return body + f"--{boundary}--\r\n".encode()


FORM = "multipart/form-data; boundary=b"


@pytest.mark.parametrize(
    ("media_type", "content", "kind", "detail"),
    [
        ("audio/wav", b"", "audio-unreadable", "The body is empty"),
        ("audio/wav", b"no sound at all", "audio-unreadable", "is not audio"),
        ("audio/wav", b"RIFF\x24\0\0\0WAVEfmt ", "audio-unreadable", "truncated"),
        ("application/x-www-form-urlencoded", b"a=b", "unsupported-media-type", "-F file=@"),
        ("application/json", b"{}", "unsupported-media-type", "'application/json' is no sound"),
        ("text/plain", b"hello", "unsupported-media-type", "'text/plain'"),
        ("multipart/form-data", b"", "bad-request", "names no boundary"),
        (FORM, b"", "bad-request", "ends before its last boundary"),
        (FORM, b"nonsense", "bad-request", "malformed"),
        (FORM, form(('name="file"', b"x"))[:-9], "bad-request", "ends before"),
        (FORM, form(('name="voice"', b"x")), "invalid-request", "has a field 'voice'"),
        (FORM, form(('name="file"; filename="a.wav"', b"")), "audio-unreadable", "is empty"),
        (FORM, form(("x=y", b"x")), "invalid-request", "has a field ''"),
        (
            FORM,
            form(('name="file"; filename="a"', b"x"), ('name="file"; filename="b"', b"x")),
            "invalid-request",
            "several files",
        ),
    ],
)
def test_a_body_that_is_no_sound_is_refused(served, media_type, content, kind, detail):
    assert_problem(served.predict(content, media_type), kind, detail)


def test_a_compressed_body_is_refused_before_it_is_read(served):
    response = served.client.post(
        "/v1/predict",
        content=b"\x1f\x8b" + bytes(99),
        headers={"Content-Type": "audio/wav", "Content-Encoding": "gzip"},
    )
    assert_problem(response, "unsupported-media-type", "Content-Encoding 'gzip'")


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("threshold=2", "threshold: Input should be less than or equal to 1"),
        ("threshold=high", "threshold: Input should be a valid number"),
        ("threshold=nan", "threshold"),
        ("labels=bored", "bored"),
    ],
)
def test_an_option_out_of_range_is_refused(served, sound_file, query, detail):
    content = sound_file().read_bytes()
    response = served.client.post(
        f"/v1/predict?{query}", content=content, headers={"Content-Type": "audio/wav"}
    )
    assert_problem(response, "invalid-request", detail)


def test_an_unknown_path_and_method_are_problems_too(served):
    assert_problem(served.client.get("/v2/predict"), "not-found", "/openapi.json")
    response = served.client.get("/v1/predict")
    assert_problem(response, "method-not-allowed", "This path takes POST only")
    assert response.headers["allow"] == "POST"
    for path in ("/healthz", "/", "/openapi.json"):
        assert_problem(served.client.delete(path), "method-not-allowed", "GET")


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_type_points_to_explains_it(served, kind):
    page = served.client.get(f"/problems/{kind}")
    assert page.status_code == 200
    assert KINDS[kind].meaning in page.text


def test_an_unknown_kind_of_problem_is_one(served):
    assert_problem(served.client.get("/problems/none"), "not-found", "called so")


def test_no_path_in_a_request_is_opened(served, tmp_path, sound_file):
    secret = sound_file()
    for name in (str(secret), f"../../../../..{secret}", "/etc/passwd\0.wav"):
        body = form((f'name="file"; filename="{name}"', b"none of it"))
        assert_problem(served.predict(body, FORM), "audio-unreadable", "is not audio")
        for path in (f"/page/{name}", f"/page/..%2f..%2f{secret.name}", f"/problems/{name}"):
            response = served.client.get(path.replace("\0", "%00"))
            assert response.status_code == 404


def test_a_defect_is_a_problem_with_the_id_that_the_log_has(serve, sound_file, caplog):
    def break_model(service):
        def fail(_):
            raise RuntimeError("weights of the wrong shape")

        service.model._predict = fail

    content = sound_file().read_bytes()
    with serve(prepare=break_model) as server:
        response = server.predict(content)
        assert_problem(response, "internal-error", response.headers["x-request-id"])
        assert "wrong shape" not in response.text
        assert server.predict(content).status_code == 500, "the model's thread has ended"
        assert server.client.get("/healthz").status_code == 200
    assert any("wrong shape" in str(record.exc_info) for record in caplog.records)


@pytest.fixture(scope="module")
def guarded(model):
    with running(model, keys=Keys(["another-key-of-somebody", KEY])) as server:
        yield server


@pytest.mark.parametrize(
    ("headers", "is_accepted"),
    [
        ({}, False),
        ({"Authorization": f"Bearer {KEY}"}, True),
        ({"Authorization": f"bearer  {KEY}"}, True),
        ({"X-API-Key": KEY}, True),
        ({"X-API-Key": "another-key-of-somebody"}, True),
        ({"Authorization": f"Basic {KEY}"}, False),
        ({"Authorization": "Bearer"}, False),
        ({"Authorization": f"Bearer {KEY[:-1]}"}, False),
        ({"X-API-Key": KEY + "0"}, False),
        ({"X-API-Key": ""}, False),
        ({"X-API-Key": KEY.upper()}, False),
    ],
)
def test_only_who_has_a_key_is_answered(guarded, headers, is_accepted):
    for path in ("/v1/model", "/metrics"):
        response = guarded.client.get(path, headers=headers)
        if is_accepted:
            assert response.status_code == 200
        else:
            assert_problem(response, "unauthorized", "X-API-Key")
            assert response.headers["www-authenticate"] == "Bearer"


def test_health_and_page_need_no_key(guarded):
    for path in ("/healthz", "/readyz", "/openapi.json", "/"):
        assert guarded.client.get(path).status_code == 200
    schema = guarded.client.get("/openapi.json").json()
    assert schema["paths"]["/v1/predict"]["post"]["security"]
    assert "security" not in schema["paths"]["/healthz"]["get"]


def test_an_upload_without_a_key_is_refused_before_its_body(guarded):
    with socket.create_connection(guarded.address) as link:
        link.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: audio/wav\r\n"
            b"Content-Length: 1000000\r\n\r\n"
        )
        assert link.recv(99).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize(
    "content",
    ["", "# only a comment\n", "short\n", "열쇠열쇠열쇠열쇠열쇠열쇠열쇠열쇠\n", f"{KEY}\nshort\n"],
)
def test_a_file_without_proper_keys_is_refused(tmp_path, content):
    (tmp_path / "keys").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"must hold one API key a line.*openssl rand"):
        Keys.read(tmp_path / "keys")


def test_a_missing_key_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="Cannot read the API keys in"):
        Keys.read(tmp_path / "none")


def test_keys_are_read_line_by_line(tmp_path):
    (tmp_path / "keys").write_text(f"# of the call centre\n\n{KEY}\nanother-key-of-somebody\n")
    keys = Keys.read(tmp_path / "keys")
    assert keys.accept(KEY)
    assert keys.accept("another-key-of-somebody")
    assert not keys.accept("# of the call centre")
    assert not keys.accept(None)
    assert not keys.accept("열쇠\udce4")
