"""The README's pictures, taken from a running service in Chromium: `make pictures`."""

import io
import shutil
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from service.cli.demo import own_service
from service.client.client import Client
from service.sample import draw_sample_slide

DOCS = Path(__file__).parent
VIEW = {"width": 1280, "height": 800}
SETTLED_MS = 3000


def save(png: bytes, name: str) -> None:
    """Write a picture as JPEG beside this file."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.thumbnail((VIEW["width"],) * 2)
    picture.save(DOCS / name, quality=85)


def take(page: Any, name: str) -> None:
    """Write what the page shows once it has settled."""
    page.wait_for_timeout(SETTLED_MS)
    save(page.screenshot(), name)


def main() -> None:
    """Analyse the drawn slide, look at it, and decide a few of its mitoses."""
    with tempfile.TemporaryDirectory() as folder, own_service(Path(folder) / "service") as url, Client(url) as client:
        slide = draw_sample_slide(Path(folder) / "sample.tif").path
        analysis = client.wait(client.submit(path=slide).id).check()
        save(client.picture(analysis.id, "overlay.png"), "overlay.jpg")
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport=VIEW)
            page.goto(f"{url}/#analysis={analysis.id}")
            page.wait_for_selector(".figure")
            page.get_by_label("Tissue outline").first.check()
            take(page, "viewer.jpg")
            page.get_by_label("Tissue outline").first.uncheck()
            for key in ("n", "a"):
                page.keyboard.press(key)
            page.get_by_label("Name").fill("Meyer, Anna")
            page.keyboard.press("Enter")
            for key in "arana":
                page.wait_for_timeout(SETTLED_MS // 6)
                page.keyboard.press(key)
            page.get_by_role("slider", name="Threshold").fill("0.5")
            take(page, "review.jpg")
            browser.close()


if __name__ == "__main__":
    main()
