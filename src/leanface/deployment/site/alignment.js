// A photo and five landmarks give the crop that the network reads: leanface.photos.alignment and crops.
import { mean } from "./detector.js";
import { cutTurned, resample } from "./images.js";

const TEMPLATE_PX = 224;  // of the crop that the template's landmarks lie in
const ROLL_MAX_RAD = Math.PI / 18;  // what is tilted more is turned upright first
const SUPPORT_PX = 2;

/** crop = scale * photo + (tx, ty), by least squares, without rotation. */
function fit(landmarks, template, size) {
  const target = template.map(point => point.map(x => (x + 0.5) * size / TEMPLATE_PX - 0.5));
  const [sx, sy] = mean(landmarks), [cx, cy] = mean(target);
  let product = 0, square = 0;
  landmarks.forEach(([x, y], index) => {
    product += (x - sx) * (target[index][0] - cx) + (y - sy) * (target[index][1] - cy);
    square += (x - sx) ** 2 + (y - sy) ** 2;
  });
  const scale = product / square;
  return { scale, tx: cx - scale * sx, ty: cy - scale * sy };
}

/** How far a face is turned clockwise in the photo. */
function rollOf(landmarks, template) {
  const [sx, sy] = mean(landmarks), [cx, cy] = mean(template);
  let across = 0, along = 0;
  landmarks.forEach(([x, y], index) => {
    const u = template[index][0] - cx, v = template[index][1] - cy;
    across += u * (y - sy) - v * (x - sx);
    along += u * (x - sx) + v * (y - sy);
  });
  return Math.atan2(across, along);
}

/**
 * Cut out a face, upright.
 * @returns { crop: RGB bytes, alignment, roll }: `roll` is how far the face was turned, 0 if it was hardly turned; the
 *     alignment is of a crop that was not turned, but has the same middle and scale.
 */
export function cropFace(photo, landmarks, template, size) {
  const roll = rollOf(landmarks, template);
  if (Math.abs(roll) <= ROLL_MAX_RAD) {
    const alignment = fit(landmarks, template, size);
    return { crop: resample(photo, alignment, size, size), alignment, roll: 0 };
  }
  const [x, y] = mean(landmarks), cos = Math.cos(roll), sin = Math.sin(roll);
  const upright = fit(landmarks.map(([px, py]) => [(px - x) * cos + (py - y) * sin, (py - y) * cos - (px - x) * sin]), template, size);
  const { scale } = upright, middle = (size - 1) / 2, u = (middle - upright.tx) / scale, v = (middle - upright.ty) / scale;
  const place = [x + cos * u - sin * v, y + sin * u + cos * v];
  const side = 2 * Math.ceil((size / 2 + SUPPORT_PX) * Math.max(1, 1 / scale) + SUPPORT_PX);
  const patch = cutTurned(photo, { x: place[0] + 0.5, y: place[1] + 0.5, side, angle: roll }, side, true);
  const shift = middle - scale * (side / 2 - 0.5);
  return {
    crop: resample(patch, { scale, tx: shift, ty: shift }, size, size),
    alignment: { scale, tx: middle - scale * place[0], ty: middle - scale * place[1] },
    roll,
  };
}

/** Turn what was read in an upright crop back, as it is in the photo: pose, place and light (leanface.face.geometry). */
export function turnedBack(coefficients, roll) {
  const result = coefficients.slice(), angle = -roll;
  const rotate = (x, y, by) => {
    result[x] = Math.cos(by) * coefficients[x] - Math.sin(by) * coefficients[y];
    result[y] = Math.sin(by) * coefficients[x] + Math.cos(by) * coefficients[y];
  };
  result[226] += angle;
  rotate(254, 255, angle);
  for (let color = 0; color < 3; color++) {
    const band = index => 227 + 3 * index + color;
    rotate(band(3), band(1), angle); rotate(band(7), band(5), angle); rotate(band(8), band(4), 2 * angle);
  }
  return result;
}
