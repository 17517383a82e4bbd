// The slide on the screen: OpenSeadragon over the service's tiles, and the way between the slide's pixels and the screen's.
//
// Frames. Places are level-0 px from the slide's corner (the middle of the first px is 0.5); detections count px by their
// centres, so theirs are half a px less. Screen px are CSS px from the corner of the view.

const [TILE, OVERLAP] = [512, 1]; // as service/tiles.py has them

// OpenSeadragon puts a style into the page where it finds none by this name; the page's policy allows no style but files.
const stands = document.createElementNS("urn:mitosis", "style");
stands.setAttribute("data-openseadragon-mobile-css", "");
document.head.append(stands);

/** `tiles` is the folder of the tiles, or null where the slide is gone. */
export function deepZoom(element, { width, height, mpp, tiles }) {
  const top = Math.ceil(Math.log2(Math.max(width, height, 1)));
  const viewer = OpenSeadragon({
    element,
    drawer: "canvas",
    showNavigationControl: false,
    showNavigator: true,
    navigatorPosition: "TOP_RIGHT",
    navigatorSizeRatio: 0.16,
    navigatorMaintainSizeRatio: true,
    navigatorAutoFade: false,
    navigatorBackground: "#e9eaec",
    navigatorOpacity: 1,
    navigatorBorderColor: "#8a929c",
    navigatorDisplayRegionColor: "#a3211b",
    animationTime: 0.45,
    springStiffness: 9,
    blendTime: 0.1,
    alwaysBlend: false,
    maxZoomPixelRatio: 8,
    minZoomImageRatio: 0.7,
    visibilityRatio: 0.3,
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
  const source = {
    width,
    height,
    tileSize: TILE,
    tileOverlap: OVERLAP,
    minLevel: Math.max(0, top - Math.ceil(Math.log2(Math.max(width, height) / TILE))),
    maxLevel: top,
    getTileUrl: (level, column, row) => `${tiles}/${level}/${column}_${row}.jpg`,
  };
  if (!tiles) source.tileExists = () => false;
  let item = null;
  const opened = new Promise((resolve) => {
    viewer.addOnceHandler("open", () => {
      item = viewer.world.getItemAt(0);
      item.addHandler("fully-loaded-change", ({ fullyLoaded }) => (element.dataset.loading = fullyLoaded ? "" : "yes"));
      element.dataset.loading = tiles ? "yes" : "";
      resolve();
    });
  });
  viewer.open(source);

  /** Where the slide's corner lies on the screen, and screen px per level-0 px; null before it is open. */
  function frame() {
    if (!item) return null;
    const corner = item.imageToViewerElementCoordinates(new OpenSeadragon.Point(0, 0));
    const far = item.imageToViewerElementCoordinates(new OpenSeadragon.Point(width, height));
    return { x: corner.x, y: corner.y, zoom: (far.x - corner.x) / width };
  }

  function toSlide(x, y) {
    const { x: left, y: above, zoom } = frame();
    return { x: (x - left) / zoom, y: (y - above) / zoom };
  }

  const size = () => ({ width: element.clientWidth, height: element.clientHeight });

  function view() {
    const seen = frame();
    if (!seen) return null;
    const { width: across, height: down } = size();
    return { ...toSlide(across / 2, down / 2), um: mpp / seen.zoom };
  }

  /** Show a place at so many um per screen px; without them, at the present scale. */
  function goTo({ x, y, um }, immediately = false) {
    if (!item) return;
    const { viewport } = viewer;
    if (um) viewport.zoomTo(item.imageToViewportZoom(mpp / um), undefined, immediately);
    viewport.panTo(item.imageToViewportCoordinates(new OpenSeadragon.Point(x, y)), immediately);
    viewport.applyConstraints(immediately);
  }

  function move(across, down) {
    const { width: wide, height: high } = size();
    const delta = viewer.viewport.deltaPointsFromPixels(new OpenSeadragon.Point(across * wide, down * high));
    viewer.viewport.panBy(delta);
    viewer.viewport.applyConstraints();
  }

  const zoomBy = (factor) => {
    viewer.viewport.zoomBy(factor);
    viewer.viewport.applyConstraints();
  };

  viewer.addHandler("canvas-key", (event) => {
    event.preventDefaultAction = true; // its own keys turn and mirror the slide; ours are in keys.js
  });
  viewer.canvas.setAttribute("role", "application");
  viewer.canvas.setAttribute("aria-label", "Slide: arrow keys move it, plus and minus zoom");

  return {
    viewer,
    opened,
    frame,
    toSlide,
    size,
    view,
    goTo,
    move,
    zoomBy,
    home: () => viewer.viewport.goHome(),
    /** Ask for the tiles again: the service was away, or the session had ended. */
    reload: () => item?.reset(),
    /** Every frame in which the slide moves. */
    onMove: (act) => viewer.addHandler("update-viewport", act),
    onRest: (act) => viewer.addHandler("animation-finish", act),
    onClick: (act) =>
      viewer.addHandler("canvas-click", (event) => event.quick && act(event.position.x, event.position.y, event)),
    onTileFailed: (act) => viewer.addHandler("tile-load-failed", act),
    close: () => viewer.destroy(),
  };
}
