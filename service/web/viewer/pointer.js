// The pointer as a tool uses it: places on the slide instead of moves of it.

/**
 * `down`, `move` and `up` are told a place (level-0 px from the corner), `move` also whether the pointer is pressed;
 * `double` is a double click. Returns a function that gives the pointer back to the slide.
 */
export function listenToPointer(stage, deepZoom, { down, move, up, double }) {
  const target = stage.querySelector(".pixels");
  let isPressed = false;

  function placeOf(event) {
    const box = stage.getBoundingClientRect();
    return deepZoom.toSlide(event.clientX - box.left, event.clientY - box.top);
  }

  function onDown(event) {
    if (event.button !== 0) return;
    isPressed = true;
    target.setPointerCapture(event.pointerId);
    down?.(placeOf(event));
  }

  const onMove = (event) => move?.(placeOf(event), isPressed);

  function onUp(event) {
    if (!isPressed) return;
    isPressed = false;
    up?.(placeOf(event));
  }

  const listeners = { pointerdown: onDown, pointermove: onMove, pointerup: onUp, dblclick: () => double?.() };
  for (const [type, listener] of Object.entries(listeners)) target.addEventListener(type, listener);
  deepZoom.followPointer(false);
  stage.classList.add("adding");
  return () => {
    for (const [type, listener] of Object.entries(listeners)) target.removeEventListener(type, listener);
    deepZoom.followPointer(true);
    stage.classList.remove("adding");
  };
}
