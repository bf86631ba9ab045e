// A texture of the whole head from one photo, as in leanface.face.photo_texture: what the photo shows, and elsewhere the
// model's own colors, adapted so that they go on where the photo ends.
import { clamp } from "./head.js";
import { lookUp } from "./images.js";

export const TEXTURE_PX = 1024;  // what `leanface export web` laid the head out for
const DEPTH_MAP_PX = 512, DEPTH_TOLERANCE_M = 0.004;
const TURNED_AWAY = 0.2, FACING = 0.55, RIM = 0.03, FEATHER_STEPS = 4;
const SMOOTHNESS = 2, DECAY = 0.004, RATIO_LOG_MAX = 0.7, DARK = 0.05;
const STEPS_MAX = 150, RESIDUAL = 0.01;

/** Visit the pixels of triangles: paint(pixel, triangle, a, b, c, weight of b, weight of c); `points` has `stride` numbers a point. */
export function rasterize(points, stride, triangles, size, paint) {
  for (let t = 0; t < triangles.length; t += 3) {
    const a = triangles[t], b = triangles[t + 1], c = triangles[t + 2];
    const x0 = points[stride * a], y0 = points[stride * a + 1], x1 = points[stride * b], y1 = points[stride * b + 1];
    const x2 = points[stride * c], y2 = points[stride * c + 1], area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0);
    if (area > -1e-9) continue;  // it faces away
    const top = Math.max(Math.ceil(Math.min(y0, y1, y2)), 0), bottom = Math.min(Math.floor(Math.max(y0, y1, y2)), size - 1);
    const left = Math.max(Math.ceil(Math.min(x0, x1, x2)), 0), right = Math.min(Math.floor(Math.max(x0, x1, x2)), size - 1);
    for (let row = top; row <= bottom; row++) {
      for (let column = left; column <= right; column++) {
        const x = column - x0, y = row - y0;
        const second = (x * (y2 - y0) - y * (x2 - x0)) / area, third = (y * (x1 - x0) - x * (y1 - y0)) / area;
        if (second >= 0 && third >= 0 && second + third <= 1) paint(row * size + column, a, b, c, second, third);
      }
    }
  }
}

/** For each vertex: where its neighbors begin in a list of all; the last entry ends it. */
export function neighborsOf(triangles, count) {
  const keys = new Set();
  for (let t = 0; t < triangles.length; t++) {
    const a = triangles[t], b = triangles[t % 3 === 2 ? t - 2 : t + 1];
    keys.add(a * count + b).add(b * count + a);
  }
  const sorted = Float64Array.from(keys).sort(), starts = new Int32Array(count + 1);
  for (const key of sorted) starts[Math.floor(key / count) + 1]++;
  for (let vertex = 0; vertex < count; vertex++) starts[vertex + 1] += starts[vertex];
  return { starts, neighbors: Int32Array.from(sorted, key => key % count) };
}

/** Paint the texture of a decoded head; RGBA bytes (TEXTURE_PX squared). */
export function paintTexture(model, mesh, coefficients, photo) {
  model.graph ??= neighborsOf(model.triangles, model.count);
  const weights = weigh(model, mesh, photo), fill = fillColors(model, mesh, weights, model.litColors(coefficients, mesh.normalsCamera), photo);
  const { corner_vertex: vertex, corner_triangles: triangles, corner_pixels: pixels } = model;
  const texture = new Uint8ClampedArray(4 * TEXTURE_PX ** 2), color = new Float32Array(3);
  rasterize(pixels, 2, triangles, TEXTURE_PX, (pixel, a, b, c, second, third) => {
    const u = vertex[a], v = vertex[b], w = vertex[c], first = 1 - second - third, to = 4 * pixel;
    const weight = first * weights[u] + second * weights[v] + third * weights[w];
    const blend = (values, k) => first * values[3 * u + k] + second * values[3 * v + k] + third * values[3 * w + k];
    if (weight > 0) lookUp(photo, blend(mesh.photo, 0), blend(mesh.photo, 1), color, 0);
    for (let k = 0; k < 3; k++) texture[to + k] = weight * color[k] + (1 - weight) * 255 * blend(fill, k);
    texture[to + 3] = 255;
  });
  spread(texture);
  return texture;
}

/** How well the photo shows each vertex, in [0, 1]. */
function weigh(model, { camera, normalsCamera, photo: places }, photo) {
  const weights = new Float32Array(model.count), [left, right, top, bottom] = bounds(places), rim = RIM * Math.max(right - left, bottom - top);
  const seen = seenVertices(model, places, left, top, (DEPTH_MAP_PX - 1) / Math.max(right - left, bottom - top));
  for (let index = 0, at = 0; index < model.count; index++, at += 3) {
    const x = -camera[at], y = -camera[at + 1], z = 1 - camera[at + 2];
    const cosine = (x * normalsCamera[at] + y * normalsCamera[at + 1] + z * normalsCamera[at + 2]) / Math.hypot(x, y, z);
    const inside = Math.min(places[at] + 0.5, places[at + 1] + 0.5, photo.width - places[at] - 0.5, photo.height - places[at + 1] - 0.5);
    weights[index] = seen[index] * smoothstep((cosine - TURNED_AWAY) / (FACING - TURNED_AWAY)) * smoothstep(inside / rim);
  }
  const { starts, neighbors } = model.graph;
  for (let step = 0; step < FEATHER_STEPS; step++) {
    const before = weights.slice();
    for (let vertex = 0; vertex < model.count; vertex++) {
      let sum = 0;
      for (let at = starts[vertex]; at < starts[vertex + 1]; at++) sum += before[neighbors[at]];
      weights[vertex] = Math.min(before[vertex], sum / Math.max(starts[vertex + 1] - starts[vertex], 1));
    }
  }
  return weights;
}

/** 1 for vertices that nothing lies in front of. */
function seenVertices(model, places, left, top, scale) {
  const points = new Float32Array(places.length), nearest = new Float32Array(DEPTH_MAP_PX ** 2), seen = new Uint8Array(model.count);
  for (let at = 0; at < places.length; at += 3) points.set([(places[at] - left) * scale, (places[at + 1] - top) * scale, places[at + 2]], at);
  rasterize(points, 3, model.triangles, DEPTH_MAP_PX, (pixel, a, b, c, second, third) => {
    const nearness = (1 - second - third) * points[3 * a + 2] + second * points[3 * b + 2] + third * points[3 * c + 2];
    if (nearness > nearest[pixel]) nearest[pixel] = nearness;
  });
  for (let vertex = 0; vertex < model.count; vertex++) {
    const [column, row] = [points[3 * vertex], points[3 * vertex + 1]].map(x => Math.min(Math.max(Math.round(x), 0), DEPTH_MAP_PX - 1));
    seen[vertex] = 1 / points[3 * vertex + 2] <= 1 / Math.max(nearest[row * DEPTH_MAP_PX + column], 1e-6) + DEPTH_TOLERANCE_M;
  }
  return seen;
}

/** Carry the ratio of photo to model on over the surface: a screened Poisson equation, by conjugate gradients. */
function fillColors(model, { photo: places }, weights, lit, photo) {
  const ratio = new Float32Array(lit.length), means = [0, 0, 0], total = weights.reduce((sum, weight) => sum + weight, 0);
  if (!total) return lit;
  const color = new Float32Array(3), clipped = x => Math.min(Math.max(x, -RATIO_LOG_MAX), RATIO_LOG_MAX);
  for (let at = 0; at < lit.length; at += 3) {
    lookUp(photo, places[at], places[at + 1], color, 0);
    for (let k = 0; k < 3; k++) {
      ratio[at + k] = clipped(Math.log((color[k] / 255 + DARK) / (lit[at + k] + DARK)));
      means[k] += weights[at / 3] * ratio[at + k] / total;
    }
  }
  const carried = [0, 1, 2].map(k => solve(model.graph, weights, weights.map((weight, index) => weight * (ratio[3 * index + k] - means[k]))));
  return lit.map((value, at) => clamp(value * Math.exp(carried[at % 3][Math.floor(at / 3)] + means[at % 3])));
}

/** Solve (weights + DECAY + SMOOTHNESS * Laplacian of the graph) x = right. */
function solve({ starts, neighbors }, weights, right) {
  const count = right.length, x = new Float32Array(count), residual = right.slice(), product = new Float32Array(count);
  const diagonal = weights.map((weight, row) => weight + DECAY + SMOOTHNESS * (starts[row + 1] - starts[row]));
  const direction = residual.map((value, row) => value / diagonal[row]);
  const dot = (a, b, c) => { let sum = 0; for (let row = 0; row < count; row++) sum += a[row] * b[row] / (c ? c[row] : 1); return sum; };
  let energy = dot(residual, residual, diagonal);
  const goal = RESIDUAL ** 2 * dot(right, right);
  for (let step = 0; step < STEPS_MAX && dot(residual, residual) > goal; step++) {
    for (let row = 0; row < count; row++) {
      let around = 0;
      for (let at = starts[row]; at < starts[row + 1]; at++) around += direction[neighbors[at]];
      product[row] = diagonal[row] * direction[row] - SMOOTHNESS * around;
    }
    const length = energy / dot(direction, product);
    for (let row = 0; row < count; row++) { x[row] += length * direction[row]; residual[row] -= length * product[row]; }
    const before = energy;
    energy = dot(residual, residual, diagonal);
    for (let row = 0; row < count; row++) direction[row] = residual[row] / diagonal[row] + energy / before * direction[row];
  }
  return x;
}

/** Carry colors on along rows beyond the surface's rim: viewers filter across it. */
function spread(texture) {
  const side = TEXTURE_PX, pixels = new Uint32Array(texture.buffer);
  for (let row = 0; row < side; row++) {
    let first = 0, last = 0;
    while (first < side && !pixels[row * side + first]) first++;
    if (first === side) {
      if (row) pixels.copyWithin(row * side, (row - 1) * side, row * side);
      continue;
    }
    pixels.fill(pixels[row * side + first], row * side, row * side + first);
    for (let column = first; column < side; column++) {
      if (pixels[row * side + column]) last = pixels[row * side + column]; else pixels[row * side + column] = last;
    }
  }
}

export function bounds(points) {
  let [left, right, top, bottom] = [Infinity, -Infinity, Infinity, -Infinity];
  for (let at = 0; at < points.length; at += 3) {
    left = Math.min(left, points[at]); right = Math.max(right, points[at]);
    top = Math.min(top, points[at + 1]); bottom = Math.max(bottom, points[at + 1]);
  }
  return [left, right, top, bottom];
}

const smoothstep = x => { x = clamp(x); return x * x * (3 - 2 * x); };
