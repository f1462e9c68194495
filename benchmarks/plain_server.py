"""The plain way to serve a model, for 40_server_load.py: what a tutorial on FastAPI ends with.

One handler that reads the upload, decodes it and calls the model, in the framework's own pool
of threads; no batching, and as many threads of torch as it likes.
"""

from __future__ import annotations

import argparse
import tempfile

import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool

from koser.inference.recognizer import Recognizer, load_recognizer


def new_app(recognizer: Recognizer) -> FastAPI:
    app = FastAPI()

    @app.get("/readyz")
    def readyz() -> dict[str, str]:
        return {"status": "ok"}

    def recognise(content: bytes) -> dict[str, object]:
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            file.write(content)
            file.flush()
            return recognizer.predict_file(file.name).to_dict()

    @app.post("/v1/predict")
    async def predict(request: Request) -> dict[str, object]:
        return await run_in_threadpool(recognise, await request.body())

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    app = new_app(load_recognizer(arguments.model))
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="warning")
