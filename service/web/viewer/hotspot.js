// How many figures the fullest disc of a radius holds: for the preview of another threshold, while it is dragged.
// What is reported is always counted by the service; both are exact, and a test compares them.

export function fullestDisc(points, radius) {
  let best = Math.min(1, points.length);
  const cells = new Map();
  const cellOf = (value) => Math.floor(value / (2 * radius));
  points.forEach(([x, y], place) => {
    const key = `${cellOf(x)},${cellOf(y)}`;
    if (!cells.has(key)) cells.set(key, []);
    cells.get(key).push(place);
  });
  points.forEach(([x, y], place) => {
    const near = [];
    for (let across = -1; across <= 1; across += 1) {
      for (let down = -1; down <= 1; down += 1)
        near.push(...(cells.get(`${cellOf(x) + across},${cellOf(y) + down}`) ?? []));
    }
    if (near.length <= best) return;
    best = Math.max(best, onRim(points, place, near, radius));
  });
  return best;
}

/** The fullest disc with one figure on its rim: turn it round that figure, and count who comes and goes. */
function onRim(points, centre, near, radius) {
  const [x, y] = points[centre];
  const turns = [];
  let always = 1;
  for (const other of near) {
    if (other === centre) continue;
    const [across, down] = [points[other][0] - x, points[other][1] - y];
    const distance = Math.hypot(across, down);
    if (distance > 2 * radius) continue;
    if (distance === 0) {
      always += 1;
      continue;
    }
    const [middle, reach] = [Math.atan2(down, across), Math.acos(Math.min(1, distance / (2 * radius)))];
    turns.push([wrapped(middle - reach), 1], [wrapped(middle + reach), -1]);
    if (wrapped(middle - reach) > wrapped(middle + reach)) always += 1; // it is inside where the turn begins
  }
  turns.sort((one, another) => one[0] - another[0] || another[1] - one[1]);
  let [inside, most] = [always, always];
  for (const [, change] of turns) {
    inside += change;
    most = Math.max(most, inside);
  }
  return most;
}

const wrapped = (angle) => (angle < 0 ? angle + 2 * Math.PI : angle >= 2 * Math.PI ? angle - 2 * Math.PI : angle);
