# Serves a model that `koser export RUN --out model.onnx` wrote, on a CPU, without torch:
#
#   docker build -t koser .
#   docker run --rm -p 8000:8000 -v "$PWD/model.onnx:/model/model.onnx:ro" koser
#
# Keys: add -v "$PWD/keys:/keys:ro", then after the image's name
#   /model/model.onnx --host 0.0.0.0 --port 8000 --api-key-file /keys
# With --read-only, add --tmpfs /tmp: large uploads lie there while they are handled.
FROM python:3.11-slim

RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin koser

WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN python -m pip install --no-cache-dir --no-compile '.[serve,av]' \
 && python -c 'import koser.serving.running'

USER koser
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["koser", "serve"]
CMD ["/model/model.onnx", "--host", "0.0.0.0", "--port", "8000"]
