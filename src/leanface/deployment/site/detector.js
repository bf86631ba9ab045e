// The largest face of a photo and its five landmarks: MediaPipe's BlazeFace and face landmarks, as in leanface.photos.
import { cutTurned, planes, resized } from "./images.js";

const SIDE = 128, MESH_SIDE = 192, MESH_COUNT = 468;
const STRIDES = [[8, 2], [16, 6]];  // pixels between anchors, and anchors at each place
const SCORE_MIN = 0.5, OVERLAP = 0.3, SURE_SCORE = 0.7;
const FACE_LOGIT = 5, SURE_LOGIT = 12, HOPELESS_LOGIT = -10;
const LOOKS_MAX = 5, SETTLED_RAD = Math.PI / 60, MARGIN = 1.5;
const STILL = 0.05;  // sides of its region that a face may move between two frames without being looked at twice
// Image-left and image-right eye, nose tip, image-left and image-right mouth corner, as means of the mesh's points.
const FIVE = [[159, 145], [386, 374], [1], [61, 78], [291, 308]];
const OUTER_EYE_CORNERS = [33, 263];

const ANCHORS = STRIDES.flatMap(([stride, count]) => {
  const line = Array.from({ length: SIDE / stride }, (_, index) => (index + 0.5) * stride);
  return line.flatMap(y => line.flatMap(x => Array(count).fill([x, y])));
});

/** Finds faces. `blazeface` and `mesh` run a network: planes in, arrays of outputs out. */
export class Detector {
  constructor(blazeface, mesh) {
    Object.assign(this, { blazeface, mesh });
  }

  /** The largest face: { points: 468 x [x, y], landmarks: 5 x [x, y] }, pixel centers at integers; null if there is none. */
  async largest(photo) {
    let best = null;
    for (let turns = 0; turns < 4; turns++) {
      for (const { score, square } of await this.find(photo, turns)) {
        const face = await this.look(photo, square);
        if (face.logit >= (score >= SURE_SCORE ? FACE_LOGIT : SURE_LOGIT) && face.logit > (best?.logit ?? 0)) best = face;
        if (turns === 0 && face.logit >= SURE_LOGIT) break;  // the largest face comes first
      }
      // Below that an upright face may be one that lies or stands on its head; seen upside down it is less of a face.
      if (turns === 0 && best?.logit >= SURE_LOGIT) break;
    }
    return best && found(best.points);
  }

  /** The face of the frame before, in the next one; null if it is not where it was. */
  async follow(photo, { points }) {
    const region = around(points.map(([x, y]) => [x + 0.5, y + 0.5]));
    let face = await this.locate(photo, region);
    const next = around(face.points);
    if (face.logit >= FACE_LOGIT && Math.hypot(next.x - region.x, next.y - region.y) > STILL * region.side) {
      face = await this.locate(photo, next);
    }
    return face.logit >= FACE_LOGIT ? found(face.points) : null;
  }

  /** What BlazeFace finds in a photo that is turned counterclockwise by quarters, the largest first. */
  async find(photo, turns) {
    const longer = Math.max(photo.width, photo.height), source = photo.reduced(Math.floor(longer / SIDE / 2));
    const scale = SIDE / Math.max(source.width, source.height);
    const width = Math.max(1, Math.round(source.width * scale)), height = Math.max(1, Math.round(source.height * scale));
    const left = Math.floor((SIDE - width) / 2), top = Math.floor((SIDE - height) / 2);
    const small = resized(source, width, height);
    const input = new Float32Array(3 * SIDE * SIDE).fill(-1);
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        let x = left + column, y = top + row;
        for (let turn = 0; turn < turns; turn++) [x, y] = [y, SIDE - 1 - x];
        for (let k = 0; k < 3; k++) input[(k * SIDE + y) * SIDE + x] = small[3 * (row * width + column) + k] / 127.5 - 1;
      }
    }
    const [answers, logits] = await this.blazeface(input, SIDE);
    const inPhoto = ([x, y]) => {
      for (let turn = 0; turn < turns; turn++) [x, y] = [SIDE - y, x];
      return [(x - left) * photo.width / width, (y - top) * photo.height / height];
    };
    return group(decoded(answers, logits)).map(({ box, eyes, score }) => {
      const [[x0, y0], [x1, y1]] = [inPhoto(box.slice(0, 2)), inPhoto(box.slice(2))];
      const size = Math.max(Math.abs(x1 - x0), Math.abs(y1 - y0));
      return { score, size, square: { x: (x0 + x1) / 2, y: (y0 + y1) / 2, side: MARGIN * size, angle: angleOf(...eyes.map(inPhoto)) } };
    }).sort((a, b) => b.size - a.size);
  }

  /** Place landmarks on what may be a face, again from where they were found until they stay there. */
  async look(photo, square) {
    let face = await this.locate(photo, square), logit = face.logit;
    if (logit < HOPELESS_LOGIT) return face;
    let region = around(face.points);
    for (let looks = 1; looks < LOOKS_MAX; looks++) {
      face = await this.locate(photo, region);
      if (looks === 1) logit = Math.min(logit, face.logit);
      if (logit < FACE_LOGIT) break;
      const next = around(face.points), turn = next.angle - region.angle;
      if (Math.abs(Math.atan2(Math.sin(turn), Math.cos(turn))) < SETTLED_RAD) break;
      region = next;
    }
    return { points: face.points, logit };
  }

  async locate(photo, region) {
    const crop = cutTurned(photo, region, MESH_SIDE);
    const [answers, logits] = await this.mesh(planes(crop.data, 4, 1 / 255), MESH_SIDE);
    const scale = region.side / MESH_SIDE, cos = scale * Math.cos(region.angle), sin = scale * Math.sin(region.angle);
    const points = Array.from({ length: MESH_COUNT }, (_, index) => {
      const across = answers[3 * index] - MESH_SIDE / 2, down = answers[3 * index + 1] - MESH_SIDE / 2;
      return [region.x + cos * across - sin * down, region.y + sin * across + cos * down];
    });
    return { points, logit: logits[0] };
  }
}

/** A face whose pixel centers are at integers. */
function found(edges) {
  const points = edges.map(([x, y]) => [x - 0.5, y - 0.5]);
  return { points, landmarks: FIVE.map(indices => mean(indices.map(index => points[index]))) };
}

function decoded(answers, logits) {
  const found = [];
  ANCHORS.forEach(([x, y], index) => {
    const score = 1 / (1 + Math.exp(-logits[index]));
    if (score <= SCORE_MIN) return;
    const [cx, cy, width, height, ...eyes] = answers.subarray(16 * index, 16 * index + 8);
    const box = [x + cx - width / 2, y + cy - height / 2, x + cx + width / 2, y + cy + height / 2];
    found.push({ score, box, eyes: [[x + eyes[0], y + eyes[1]], [x + eyes[2], y + eyes[3]]] });
  });
  return found.sort((a, b) => b.score - a.score);
}

/** Merge boxes that show the same face: their mean, weighted by score. */
function group(found) {
  const faces = [];
  while (found.length) {
    const same = found.filter(other => other === found[0] || overlap(found[0].box, other.box) > OVERLAP);
    found = found.filter(other => !same.includes(other));
    const total = same.reduce((sum, { score }) => sum + score, 0);
    const blend = pick => same.reduce((sum, face) => sum + face.score / total * pick(face), 0);
    faces.push({
      score: same[0].score,
      box: [0, 1, 2, 3].map(index => blend(face => face.box[index])),
      eyes: [0, 1].map(eye => [0, 1].map(axis => blend(face => face.eyes[eye][axis]))),
    });
  }
  return faces;
}

function overlap(a, b) {
  const both = Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0])) * Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
  const area = box => (box[2] - box[0]) * (box[3] - box[1]);
  return both / (area(a) + area(b) - both);
}

/** The square around the landmarks, turned with the head. */
function around(points) {
  const angle = angleOf(...OUTER_EYE_CORNERS.map(index => points[index])), cos = Math.cos(angle), sin = Math.sin(angle);
  const us = points.map(([x, y]) => x * cos + y * sin), vs = points.map(([x, y]) => y * cos - x * sin);
  const [left, right, top, bottom] = [Math.min(...us), Math.max(...us), Math.min(...vs), Math.max(...vs)];
  const u = (left + right) / 2, v = (top + bottom) / 2;
  return { x: u * cos - v * sin, y: u * sin + v * cos, side: MARGIN * Math.max(right - left, bottom - top), angle };
}

const angleOf = ([x0, y0], [x1, y1]) => Math.atan2(y1 - y0, x1 - x0);

export const mean = points => [0, 1].map(axis => points.reduce((sum, point) => sum + point[axis], 0) / points.length);
