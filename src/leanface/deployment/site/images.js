// Pictures as bytes: reduced, resampled and cut out, as Pillow does it in leanface.photos.

/** A picture: { width, height, data } with RGBA bytes, as ImageData has them. */
export class Photo {
  constructor({ width, height, data }) {
    Object.assign(this, { width, height, data });
    this.smaller = new Map();
  }

  /** Average squares of `factor` x `factor` pixels; remembered. */
  reduced(factor) {
    if (factor <= 1) return this;
    if (!this.smaller.has(factor)) {
      const width = Math.ceil(this.width / factor), height = Math.ceil(this.height / factor);
      const data = new Uint8ClampedArray(4 * width * height);
      for (let row = 0; row < height; row++) {
        const bottom = Math.min((row + 1) * factor, this.height);
        for (let column = 0; column < width; column++) {
          const right = Math.min((column + 1) * factor, this.width);
          let red = 0, green = 0, blue = 0, count = 0;
          for (let y = row * factor; y < bottom; y++) {
            for (let x = column * factor; x < right; x++, count++) {
              const at = 4 * (y * this.width + x);
              red += this.data[at]; green += this.data[at + 1]; blue += this.data[at + 2];
            }
          }
          const to = 4 * (row * width + column);
          data[to] = red / count; data[to + 1] = green / count; data[to + 2] = blue / count; data[to + 3] = 255;
        }
      }
      this.smaller.set(factor, new Photo({ width, height, data }));
    }
    return this.smaller.get(factor);
  }
}

const BICUBIC = { support: 2, weigh: t => t < 1 ? (1.5 * t - 2.5) * t * t + 1 : ((-0.5 * t + 2.5) * t - 4) * t + 2 };
const BILINEAR = { support: 1, weigh: t => 1 - t };

/** Which pixels of `length` each of `size` takes, with weights: result = scale * source + shift, wider where it shrinks. */
function taps(length, size, scale, shift, filter) {
  const stretch = Math.max(1, 1 / scale), support = filter.support * stretch;
  return Array.from({ length: size }, (_, index) => {
    const center = (index - shift) / scale, places = [], weights = [];
    for (let place = Math.ceil(center - support); place < center + support; place++) {
      places.push(Math.min(Math.max(place, 0), length - 1));  // edge pixels are repeated
      weights.push(filter.weigh(Math.abs(place - center) / stretch));
    }
    const sum = weights.reduce((total, weight) => total + weight, 0);
    return { places, weights: weights.map(weight => weight / sum) };
  });
}

/** Scale and shift a photo into RGB bytes (height x width x 3): crop = scale * photo + (tx, ty), pixel centers at integers. */
export function resample(photo, { scale, tx, ty }, width, height) {
  return resampleBy(photo, taps(photo.width, width, scale, tx, BICUBIC), taps(photo.height, height, scale, ty, BICUBIC));
}

/** Fit a whole photo into RGB bytes (height x width x 3). */
export function resized(photo, width, height) {
  const fitted = (length, size) => taps(length, size, size / length, size / length / 2 - 0.5, BILINEAR);
  return resampleBy(photo, fitted(photo.width, width), fitted(photo.height, height));
}

function resampleBy(photo, columns, rows) {
  const width = columns.length, height = rows.length;
  const all = rows.flatMap(row => row.places), top = Math.min(...all), count = Math.max(...all) - top + 1;
  // In 8 bits between the two passes, as in the crops that the network learned from.
  const narrow = new Uint8ClampedArray(3 * width * count), result = new Uint8ClampedArray(3 * width * height);
  columns.forEach(({ places, weights }, column) => {
    for (let row = 0; row < count; row++) {
      let red = 0, green = 0, blue = 0;
      for (let tap = 0; tap < places.length; tap++) {
        const at = 4 * ((top + row) * photo.width + places[tap]), weight = weights[tap];
        red += weight * photo.data[at]; green += weight * photo.data[at + 1]; blue += weight * photo.data[at + 2];
      }
      const to = 3 * (row * width + column);
      narrow[to] = red; narrow[to + 1] = green; narrow[to + 2] = blue;
    }
  });
  rows.forEach(({ places, weights }, row) => {
    for (let at = 0; at < 3 * width; at++) {
      let sum = 0;
      for (let tap = 0; tap < places.length; tap++) sum += weights[tap] * narrow[3 * width * (places[tap] - top) + at];
      result[3 * width * row + at] = sum;
    }
  });
  return result;
}

/** The color of a photo at a place, pixel centers at integers, beyond the photo its edge; into `out` from `to` on. */
export function lookUp(photo, x, y, out, to) {
  x = Math.min(Math.max(x, 0), photo.width - 1); y = Math.min(Math.max(y, 0), photo.height - 1);
  const left = Math.floor(x), top = Math.floor(y), u = x - left, v = y - top, { data, width } = photo;
  const right = Math.min(left + 1, width - 1), bottom = Math.min(top + 1, photo.height - 1);
  const a = 4 * (top * width + left), b = 4 * (top * width + right), c = 4 * (bottom * width + left), d = 4 * (bottom * width + right);
  for (let k = 0; k < 3; k++) {
    out[to + k] = (1 - v) * ((1 - u) * data[a + k] + u * data[b + k]) + v * ((1 - u) * data[c + k] + u * data[d + k]);
  }
}

/** The same by sixteen pixels, as Pillow does it, whose cubic is sharper here than where it resamples. */
function lookUpSmoothly(photo, x, y, out, to) {
  const left = Math.floor(x), top = Math.floor(y), sums = [0, 0, 0], inside = (place, length) => Math.min(Math.max(place, 0), length - 1);
  const weigh = t => t < 1 ? (t - 2) * t * t + 1 : ((5 - t) * t - 8) * t + 4;
  for (let row = top - 1; row < top + 3; row++) {
    for (let column = left - 1; column < left + 3; column++) {
      const weight = weigh(Math.abs(y - row)) * weigh(Math.abs(x - column));
      const at = 4 * (inside(row, photo.height) * photo.width + inside(column, photo.width));
      for (let k = 0; k < 3; k++) sums[k] += weight * photo.data[at + k];
    }
  }
  for (let k = 0; k < 3; k++) out[to + k] = Math.min(Math.max(sums[k], 0), 255);
}

/**
 * Cut a turned square out of a photo as an upright one of `side` pixels, RGBA.
 * @param square { x, y, side, angle }: its center and size in edge coordinates (a photo spans [0, width] x [0, height]), and
 *     its angle to the photo's x axis, clockwise.
 * @param smooth by sixteen pixels for each instead of four, and with the photo's edges repeated beyond it instead of black.
 */
export function cutTurned(photo, square, side, smooth = false) {
  // Few pixels are looked at for each: what is much larger is averaged first.
  const factor = Math.max(1, Math.floor(square.side / side)), source = photo.reduced(factor);
  const step = square.side / side / factor, cos = step * Math.cos(square.angle), sin = step * Math.sin(square.angle);
  const data = new Uint8Array(4 * side * side).fill(255);  // which rounds down, as Pillow does here
  for (let row = 0; row < side; row++) {
    for (let column = 0; column < side; column++) {
      const across = column + 0.5 - side / 2, down = row + 0.5 - side / 2, to = 4 * (row * side + column);
      const x = square.x / factor + cos * across - sin * down, y = square.y / factor + sin * across + cos * down;
      if (smooth) lookUpSmoothly(source, x - 0.5, y - 0.5, data, to);
      else if (x >= 0 && y >= 0 && x < source.width && y < source.height) lookUp(source, x - 0.5, y - 0.5, data, to);
      else data[to] = data[to + 1] = data[to + 2] = 0;
    }
  }
  return new Photo({ width: side, height: side, data });
}

/** RGB or RGBA bytes as the planes (3 x height x width) that networks take, times `gain`, plus `offset`. */
export function planes(bytes, channels, gain, offset = 0) {
  const count = bytes.length / channels, result = new Float32Array(3 * count);
  for (let at = 0; at < count; at++) {
    for (let k = 0; k < 3; k++) result[k * count + at] = bytes[channels * at + k] * gain + offset;
  }
  return result;
}
