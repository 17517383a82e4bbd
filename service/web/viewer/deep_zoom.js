// The slide on the screen: OpenSeadragon over the service's tiles, and the way between the slide's pixels and the
// screen's.
//
// Frames. Places are level-0 px from the slide's corner (the middle of the first px is 0.5); detections count px from
// the middle of the first one, so theirs are half a px less. Screen px are CSS px from the corner of the view.

import { call } from "./api.js";
import { colour } from "./dom.js";

// OpenSeadragon adds a style to the page unless it finds one of this name; the page's policy allows no style but files.
const placeholder = document.createElementNS("urn:mitosis", "style");
placeholder.setAttribute("data-openseadragon-mobile-css", "");
document.head.append(placeholder);

/** How a slide is cut into tiles, as its Deep Zoom descriptor says. */
export async function loadTiling(slideId) {
  const path = `v1/slides/${slideId}`;
  const descriptor = await (await call(`${path}/tiles.dzi`)).text();
  const image = new DOMParser().parseFromString(descriptor, "application/xml").documentElement;
  const [tilePx, overlapPx] = ["TileSize", "Overlap"].map((name) => Number(image.getAttribute(name)));
  return { folder: `${path}/tiles_files`, format: image.getAttribute("Format"), tilePx, overlapPx };
}

/** `tiling` is null where the slide was deleted: then the view has no pixels. `mpp` in um per level-0 px. */
export function createDeepZoom(element, { width, height, mpp, tiling }) {
  const viewer = OpenSeadragon({ element, ...options() });
  const { image, opened } = openImage(viewer, element, tileSource(width, height, tiling), Boolean(tiling));

  /**
   * Where the slide's corner would lie on the screen if nothing were turned, screen px per level-0 px, and the turn round
   * the middle of the view (radians, clockwise); null before the slide is open.
   */
  function frame() {
    if (!image()) return null;
    const [corner, far] = [new OpenSeadragon.Point(0, 0), new OpenSeadragon.Point(width, height)].map((point) =>
      viewer.viewport.pixelFromPointNoRotate(image().imageToViewportCoordinates(point), true),
    );
    const turn = (viewer.viewport.getRotation(true) * Math.PI) / 180;
    return { x: corner.x, y: corner.y, zoom: (far.x - corner.x) / width, turn };
  }

  function toSlide(x, y) {
    const { x: left, y: top, zoom, turn } = frame();
    const [across, down] = turned(x, y, size(), -turn);
    return { x: (across - left) / zoom, y: (down - top) / zoom };
  }

  const size = () => ({ width: element.clientWidth, height: element.clientHeight });

  /** The centre of the view and its um per screen px; null before the slide is open. */
  function view() {
    const now = frame();
    if (!now) return null;
    const { width: across, height: down } = size();
    return { ...toSlide(across / 2, down / 2), um: mpp / now.zoom };
  }

  /** Show a place at so many um per screen px; without them, at the present scale. */
  function goTo({ x, y, um }, immediately = false) {
    if (!image()) return;
    const { viewport } = viewer;
    if (um) viewport.zoomTo(image().imageToViewportZoom(mpp / um), undefined, immediately);
    viewport.panTo(image().imageToViewportCoordinates(new OpenSeadragon.Point(x, y)), immediately);
    viewport.applyConstraints(immediately);
  }

  /** Move by parts of the view's width and height. */
  function move(across, down) {
    const { width: viewWidth, height: viewHeight } = size();
    const screenPx = new OpenSeadragon.Point(across * viewWidth, down * viewHeight);
    viewer.viewport.panBy(viewer.viewport.deltaPointsFromPixels(screenPx));
    viewer.viewport.applyConstraints();
  }

  function zoomBy(factor) {
    viewer.viewport.zoomBy(factor);
    viewer.viewport.applyConstraints();
  }

  /** Turn the slide clockwise by so many degrees more. */
  function turnBy(degrees) {
    const now = viewer.viewport.getRotation();
    viewer.viewport.setRotation((((now + degrees) % 360) + 360) % 360, true);
  }

  viewer.addHandler("canvas-key", (event) => {
    event.preventDefaultAction = true; // OpenSeadragon's own keys turn and mirror the slide; ours are in slide_keys.js
  });
  viewer.canvas.setAttribute("role", "application");
  viewer.canvas.setAttribute("aria-label", "Slide: arrow keys move it, plus and minus zoom");

  return {
    opened,
    frame,
    toSlide,
    size,
    view,
    goTo,
    move,
    zoomBy,
    turnBy,
    /** Degrees, clockwise. */
    turn: () => viewer.viewport.getRotation(),
    /** Let keys be for the slide. */
    focus: () => viewer.canvas.focus({ preventScroll: true }),
    /** Whether the pointer moves the slide; a tool may need it for itself. */
    followPointer: (on) => viewer.setMouseNavEnabled(on),
    home: () => viewer.viewport.goHome(),
    /** Ask for all tiles again: the service was away, or the session had ended. */
    reload: () => image()?.reset(),
    /** In every frame in which the slide moves. */
    onMove: (act) => viewer.addHandler("update-viewport", act),
    onRest: (act) => viewer.addHandler("animation-finish", act),
    onClick: (act) =>
      viewer.addHandler("canvas-click", (event) => event.quick && act(event.position.x, event.position.y)),
    onTileFailed: (act) => viewer.addHandler("tile-load-failed", act),
    close: () => viewer.destroy(),
  };
}

/** A place of the screen, turned round the middle of a view; radians, clockwise. */
export function turned(x, y, { width, height }, radians) {
  if (!radians) return [x, y];
  const [across, down] = [x - width / 2, y - height / 2];
  const [cosine, sine] = [Math.cos(radians), Math.sin(radians)];
  return [width / 2 + across * cosine - down * sine, height / 2 + across * sine + down * cosine];
}

const options = () => ({
  drawer: "canvas",
  showNavigationControl: false,
  showNavigator: true,
  navigatorPosition: "TOP_RIGHT",
  navigatorSizeRatio: 0.16,
  navigatorMaintainSizeRatio: true,
  navigatorAutoFade: false,
  navigatorBackground: colour("navigator"),
  navigatorOpacity: 1,
  navigatorBorderColor: colour("navigator-border"),
  navigatorDisplayRegionColor: colour("navigator-view"),
  animationTime: 0.45,
  springStiffness: 9,
  blendTime: 0.1,
  alwaysBlend: false,
  maxZoomPixelRatio: 8,
  minZoomImageRatio: 0.7,
  visibilityRatio: 0.3,
  preserveImageSizeOnResize: true, // ×20 stays ×20 where a tool takes some of the view's height
  zoomPerScroll: 1.35,
  zoomPerDoubleClick: 2,
  imageLoaderLimit: 4, // the browser has six connections to one host; the rest of the page needs some
  maxImageCacheCount: 400,
  tileRetryMax: 2,
  tileRetryDelay: 2500,
  crossOriginPolicy: false,
  gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
  gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: true },
  gestureSettingsPen: { clickToZoom: false, dblClickToZoom: true },
});

function tileSource(width, height, tiling) {
  const longest = Math.max(width, height, 1);
  const top = Math.ceil(Math.log2(longest));
  if (!tiling) return { width, height, tileSize: longest, getTileUrl: () => "", tileExists: () => false };
  const { folder, format, tilePx, overlapPx } = tiling;
  return {
    width,
    height,
    tileSize: tilePx,
    tileOverlap: overlapPx,
    minLevel: Math.max(0, top - Math.ceil(Math.log2(longest / tilePx))),
    maxLevel: top,
    getTileUrl: (level, column, row) => `${folder}/${level}/${column}_${row}.${format}`,
  };
}

/** Open a source; `image()` is null until it is open, `opened` is a promise. */
function openImage(viewer, element, source, hasTiles) {
  let image = null;
  const opened = new Promise((resolve) => {
    viewer.addOnceHandler("open", () => {
      image = viewer.world.getItemAt(0);
      image.addHandler("fully-loaded-change", ({ fullyLoaded }) => {
        element.dataset.loading = fullyLoaded ? "" : "yes";
      });
      element.dataset.loading = hasTiles ? "yes" : "";
      resolve();
    });
  });
  viewer.open(source);
  return { image: () => image, opened };
}
