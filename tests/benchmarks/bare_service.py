"""The least that could serve patches: FastAPI and the same network in one process; `bench_patches` is held against it.

No queue, no store, no sandbox, no tissue, no stain estimate: a patch in, points out, and a crash loses them.
"""

import io
import sys

import numpy as np
import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from PIL import Image
from skimage.measure import label, regionprops

from service.inference import Detector

detector = Detector.load()
app = FastAPI(on_startup=[lambda: print("ready", flush=True)])


@app.post("/patch")
async def answer(request: Request) -> list[tuple[float, float]]:
    return await run_in_threadpool(find, await request.body())


def find(content: bytes) -> list[tuple[float, float]]:
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    cells = detector.predict(pixels[None])[0]
    return [each.centroid for each in regionprops(label(cells >= detector.card.threshold))]


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
