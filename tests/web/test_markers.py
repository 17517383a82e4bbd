"""A marker sits on its figure: its ring on the screen against the slide's own pixels, at three zooms."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from skimage.registration import phase_cross_correlation

from service.slide import Box, open_slide
from tests.web.conftest import Service

HALF_PX = 48  # of the part of the screen that is compared
RING_UM = 13.0


@pytest.mark.parametrize("um", [0.08, 0.2274, 0.6])
def test_the_ring_is_centred_on_the_figure(
    service: Service, slide: Path, analysis: dict[str, Any], shown: Any, um: float
) -> None:
    x, y = alone(service.detections(analysis["id"])["detections"])
    page, _ = shown(analysis)
    for layer in ("hotspot", "detections"):
        page.uncheck(f"[data-layer={layer}]")
    page.evaluate("hash => { location.hash = hash }", f"#analysis={analysis['id']}&x={x:.0f}&y={y:.0f}&um={um}")
    page.wait_for_timeout(1500)  # the slide comes to rest, and its tiles come
    without = screen(page)
    page.check("[data-layer=detections]")
    page.wait_for_timeout(200)
    ring_x, ring_y = middle_of_ring(screen(page), without, page.locator(".stage").bounding_box(), RING_UM / um)

    left, top = round(ring_x) - HALF_PX, round(ring_y) - HALF_PX
    seen = without[top : top + 2 * HALF_PX, left : left + 2 * HALF_PX]
    with open_slide(slide) as opened:
        scale = um / opened.require_mpp()[0]  # level-0 px per screen px
        pixels = opened.read(Box(0, 0, opened.width, opened.height))
    # where the window's corner lies on the slide, if the ring's middle is the figure's
    corner_x, corner_y = x + 0.5 + (left - ring_x) * scale, y + 0.5 + (top - ring_y) * scale
    side = 2 * HALF_PX * scale
    box = (corner_x, corner_y, corner_x + side, corner_y + side)
    expected = Image.fromarray(pixels).resize((2 * HALF_PX,) * 2, Image.Resampling.BILINEAR, box)
    shift, error, _ = phase_cross_correlation(
        grey(np.asarray(expected)), grey(seen), upsample_factor=20, normalization=None
    )
    assert error < 0.5, "the part of the slide is another"
    assert np.abs(shift).max() < 1, f"{shift} px at {um} um per px"


@pytest.mark.parametrize(
    "region",
    [
        {"x": 10, "y": 20, "width": 30, "height": 40},
        {"type": "Polygon", "coordinates": [[[10, 20], [40, 20], [40, 60], [10, 60], [10, 20]]]},
        {"type": "MultiPolygon", "coordinates": [[[[10, 20], [40, 20], [40, 60], [10, 60], [10, 20]]]]},
    ],
    ids=lambda region: region.get("type", "Rectangle"),
)
def test_the_outline_of_a_region_lies_where_the_region_does(open_page: Any, region: dict[str, Any]) -> None:
    page = open_page()
    on_line = page.evaluate(
        """async region => {
          const { regionPath } = await import("/viewer/overlay.js");
          const context = document.createElement("canvas").getContext("2d");
          const path = regionPath(region);
          const places = [[10, 40], [40, 40], [25, 20], [25, 60], [25, 40], [5, 40]];
          return places.map(([x, y]) => context.isPointInStroke(path, x, y));
        }""",
        region,
    )
    assert on_line == [True, True, True, True, False, False]


MANY_MARKS = """async ways => {
  const { createOverlay } = await import("/viewer/overlay.js");
  const stage = document.body.appendChild(document.createElement("div"));
  Object.assign(stage.style, { position: "fixed", inset: 0 });
  const place = { x: 0, y: 0, zoom: 0.0625, turn: 0 };
  const size = () => ({ width: stage.clientWidth, height: stage.clientHeight });
  let move = null;
  const overlay = createOverlay(stage, { size, frame: () => place, onMove: draw => { move = draw } }, [0.25, 0.25]);
  const figures = [...Array(2500).keys()].map(id => (
    { key: `d${id}`, x: 140 * (id % 50), y: 140 * Math.floor(id / 50), score: 0.9, decision: null, origin: "machine" }
  ));
  overlay.set({ figures });
  await new Promise(resolve => setTimeout(resolve, 500));
  const canvas = stage.querySelector("canvas");
  const ink = () => {
    const { data, width } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const at = ({ x, y }) => {
      const [column, row] = [place.x + (x + 0.5) * place.zoom, place.y + (y + 0.5) * place.zoom].map(Math.round);
      const isSeen = Math.min(column, row) > 3 && column < canvas.width - 3 && row < canvas.height - 3;
      return isSeen ? data[4 * (row * width + column) + 3] > 0 : null;
    };
    const seen = figures.map(at).filter(each => each !== null);
    let all = 0;
    for (let index = 3; index < data.length; index += 4) all += data[index] > 0;
    return [seen.length, seen.filter(Boolean).length, all];
  };
  const found = [];
  for (const way of ways) {
    Object.assign(place, way);
    move();
    found.push(ink());
  }
  const calls = [];
  const { drawImage } = CanvasRenderingContext2D.prototype;
  CanvasRenderingContext2D.prototype.drawImage = function (...given) { calls.push(1); drawImage.apply(this, given) };
  place.x += 0.3;
  move();
  const once = calls.length;
  figures.splice(0, 2000);
  overlay.set({ figures });
  await new Promise(resolve => setTimeout(resolve, 300));
  CanvasRenderingContext2D.prototype.drawImage = drawImage;
  stage.remove();
  return { found, once, fewer: ink() };
}"""


def test_thousands_of_marks_are_where_they_belong_while_the_slide_is_moved_and_zoomed(open_page: Any) -> None:
    page = open_page()
    moves = [{"x": x, "y": x / 2} for x in (0.0, 0.2, 40.7, 150.4, 420.0, -300.6, 0.0)]
    others = [{"zoom": 0.05}, {"x": 3.3}, {"turn": 0.0, "zoom": 0.0625}, {"x": -77.7, "y": -50.2}]
    told = page.evaluate(MANY_MARKS, [*moves, *others])
    for seen, inked, pixels in told["found"]:
        assert seen > 300
        assert inked == seen, "a mark is not on its figure"
        assert 9 * seen <= pixels <= 40 * 2500
    assert told["once"] == 1, "they are drawn once, and moved"
    assert told["fewer"][0] == told["fewer"][1] <= 500, "what has changed is drawn anew"
    assert told["fewer"][2] < 40 * 500


def alone(detections: list[dict[str, Any]]) -> tuple[float, float]:
    """The detection that is farthest from the others, and from the slide's edge."""
    places = np.array([(each["x"], each["y"]) for each in detections])
    apart = np.linalg.norm(places[:, None] - places, axis=-1)
    np.fill_diagonal(apart, np.inf)
    room = np.minimum(apart.min(1), np.minimum(places, 1450 - places).min(1) * 2)
    best = places[room.argmax()]
    return float(best[0]), float(best[1])


def screen(page: Any) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))


def middle_of_ring(
    one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8], stage: dict[str, float], radius: float
) -> tuple[float, float]:
    """The middle of what has changed round the middle of the stage: where the edges of screen px are whole numbers."""
    middle_x, middle_y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    reach = min(radius, 70) + 8
    changed = np.abs(one.astype(int) - other).max(-1) > 12
    rows, columns = np.nonzero(changed)
    near = (np.abs(columns - middle_x) < reach) & (np.abs(rows - middle_y) < reach)
    columns, rows = columns[near], rows[near]
    assert len(rows) > 100
    return (columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2


def grey(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    window = np.hanning(2 * HALF_PX)
    flat = pixels.mean(-1) - pixels.mean()
    return np.asarray(flat * window * window[:, None])
