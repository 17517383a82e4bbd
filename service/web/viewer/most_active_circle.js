// How many figures the most active circle of a radius holds: for the preview of another threshold, while it is moved.
// What is reported is always counted by the service; both are exact, and a test compares them.

/** The largest number of points ([x, y] in um) in any circle of the radius (um). */
export function countInMostActiveCircle(points, radius) {
  let most = Math.min(1, points.length);
  const cells = new Map();
  const cellOf = (value) => Math.floor(value / (2 * radius));
  points.forEach(([x, y], index) => {
    const key = `${cellOf(x)},${cellOf(y)}`;
    if (!cells.has(key)) cells.set(key, []);
    cells.get(key).push(index);
  });
  points.forEach(([x, y], index) => {
    const near = [];
    for (let across = -1; across <= 1; across += 1) {
      for (let down = -1; down <= 1; down += 1) {
        near.push(...(cells.get(`${cellOf(x) + across},${cellOf(y) + down}`) ?? []));
      }
    }
    if (near.length > most) most = Math.max(most, countOnRim(points, index, near, radius));
  });
  return most;
}

/** The largest number in a circle with one point on its rim: turn it round that point; points enter and leave it. */
function countOnRim(points, rim, near, radius) {
  const [x, y] = points[rim];
  const turns = []; // [angle, 1 where a point enters and -1 where it leaves]
  let insideAtStart = 1;
  for (const other of near) {
    if (other === rim) continue;
    const [across, down] = [points[other][0] - x, points[other][1] - y];
    const distance = Math.hypot(across, down);
    if (distance > 2 * radius) continue;
    if (distance === 0) {
      insideAtStart += 1;
      continue;
    }
    const [middle, half] = [Math.atan2(down, across), Math.acos(Math.min(1, distance / (2 * radius)))];
    const [enters, leaves] = [wrapped(middle - half), wrapped(middle + half)];
    turns.push([enters, 1], [leaves, -1]);
    if (enters > leaves) insideAtStart += 1; // its arc holds angle 0, where the turn begins
  }
  turns.sort((one, another) => one[0] - another[0] || another[1] - one[1]);
  let [inside, most] = [insideAtStart, insideAtStart];
  for (const [, change] of turns) {
    inside += change;
    most = Math.max(most, inside);
  }
  return most;
}

function wrapped(angle) {
  if (angle < 0) return angle + 2 * Math.PI;
  return angle >= 2 * Math.PI ? angle - 2 * Math.PI : angle;
}
