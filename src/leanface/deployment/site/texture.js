// A texture of the whole head from one photo, by the rules of leanface.face.photo_texture: what the photo shows, and
// elsewhere the model's own colors, adapted so that they go on where the photo ends.
import { clamp } from "./head.js";
import { lookUp } from "./images.js";

export const TEXTURE_PX = 1024;  // what `leanface export web` laid the head out for
const DEPTH_MAP_PX = 512, DEPTH_TOLERANCE_M = 0.004, BLOCK_PX = 8, OVERHANG_M = 0.02;
const TURNED_AWAY = 0.2, FACING = 0.55, RIM = 0.03, FEATHER_STEPS = 4, OUTLINE = 0.008, WITHIN = 0.032;
const SMOOTHNESS = 2, DECAY = 0.004, MIRRORED = 0.2, RATIO_LOG_MAX = 0.7, DARK = 0.05;
const STEPS_MAX = 400, RESIDUAL = 0.003, SAMPLED = 16;

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

/** Paint the texture of a decoded head; RGBA bytes (TEXTURE_PX squared). */
export function paintTexture(model, mesh, coefficients, photo) {
  const weights = weigh(model, mesh, photo), factor = reduction(model, mesh.photo, weights), source = photo.reduced(factor);
  const places = mesh.photo.map(pixel => (pixel + 0.5) / factor - 0.5), fill = fillColors(model, mesh, places, weights, coefficients, source);
  // Of each vertex: its place in the photo, the photo's weight, and the color to fill with.
  const attributes = new Float32Array(6 * model.count);
  for (let vertex = 0, at = 0; vertex < model.count; vertex++, at += 3) {
    attributes.set([places[at], places[at + 1], weights[vertex], 255 * fill[at], 255 * fill[at + 1], 255 * fill[at + 2]], 2 * at);
  }
  const { corner_vertex: vertex, corner_triangles: triangles, corner_pixels: pixels } = model;
  const texture = new Uint8ClampedArray(4 * TEXTURE_PX ** 2), color = new Float32Array(3);
  rasterize(pixels, 2, triangles, TEXTURE_PX, (pixel, a, b, c, second, third) => {
    const u = 6 * vertex[a], v = 6 * vertex[b], w = 6 * vertex[c], first = 1 - second - third, to = 4 * pixel;
    const blend = k => first * attributes[u + k] + second * attributes[v + k] + third * attributes[w + k], weight = blend(2);
    if (weight > 0) lookUp(source, blend(0), blend(1), color, 0);
    for (let k = 0; k < 3; k++) texture[to + k] = weight * color[k] + (1 - weight) * blend(3 + k);
    texture[to + 3] = 255;
  });
  spread(texture);
  return texture;
}

/** How many pixels of the photo a texel spans in each direction, where the photo is finer than the texture; else 1. */
function reduction({ corner_vertex: vertex, corner_triangles: triangles, corner_pixels: pixels }, places, weights) {
  const area = (points, stride, [a, b, c]) => Math.abs((points[stride * b] - points[stride * a]) * (points[stride * c + 1] - points[stride * a + 1])
    - (points[stride * b + 1] - points[stride * a + 1]) * (points[stride * c] - points[stride * a])) / 2;
  const ratios = [];
  for (let t = 0; t < triangles.length; t += 3 * SAMPLED) {
    const corners = triangles.subarray(t, t + 3), vertices = corners.map(corner => vertex[corner]);
    if (vertices.every(index => weights[index] > 0)) ratios.push(area(places, 3, vertices) / Math.max(area(pixels, 2, corners), 1e-6));
  }
  return ratios.length ? Math.max(1, Math.round(Math.sqrt(ratios.sort((a, b) => a - b)[ratios.length >> 1]))) : 1;
}

/** How well the photo shows each vertex, in [0, 1]; see leanface.face.visibility. */
function weigh(model, { camera, normalsCamera, photo: places }, photo) {
  const [left, right, top, bottom] = bounds(places), size = Math.max(right - left, bottom - top), weights = new Float32Array(model.count);
  const points = places.slice(), last = DEPTH_MAP_PX - 1, end = DEPTH_MAP_PX / BLOCK_PX;
  const around = pixel => [Math.max(blockOf(pixel) - 1, 0), Math.min(blockOf(pixel) + 1, end - 1)];
  for (let at = 0; at < points.length; at += 3) {
    points[at] = (places[at] - left) * last / size; points[at + 1] = (places[at + 1] - top) * last / size;
  }
  const { nearest, blocks, openBlocks } = depthMap(model, points), inward = distances(nearest);
  for (let index = 0, at = 0; index < model.count; index++, at += 3) {
    const [column, row] = [points[at], points[at + 1]].map(x => Math.min(Math.max(Math.round(x), 0), last));
    const [i0, i1] = around(row), [j0, j1] = around(column);
    let above = 1e-6, open = 0;
    for (let i = i0; i <= i1; i++) {
      for (let j = j0; j <= j1; j++) {
        above = Math.max(above, blocks[i * end + j]); open |= openBlocks[i * end + j];
      }
    }
    const inside = Math.min(places[at] + 0.5, places[at + 1] + 0.5, photo.width - places[at] - 0.5, photo.height - places[at + 1] - 0.5);
    weights[index] = smoothstep(inside / (RIM * size));
    if (model.openings[index] && open) continue;  // whatever the photo shows in mouth and eyes is what lies there
    const x = -camera[at], y = -camera[at + 1], z = 1 - camera[at + 2], depth = 1 / places[at + 2];
    const hidden = depth > 1 / Math.max(nearest[row * DEPTH_MAP_PX + column], 1e-6) + DEPTH_TOLERANCE_M || depth > 1 / above + OVERHANG_M;
    const cosine = (x * normalsCamera[at] + y * normalsCamera[at + 1] + z * normalsCamera[at + 2]) / Math.hypot(x, y, z);
    weights[index] *= hidden ? 0 : smoothstep((cosine - TURNED_AWAY) / (FACING - TURNED_AWAY))
      * smoothstep((inward[(row >> 1) * DEPTH_MAP_PX / 2 + (column >> 1)] / DEPTH_MAP_PX - OUTLINE) / (WITHIN - OUTLINE));
  }
  const { island_starts: starts, island_neighbors: neighbors } = model, feathered = weights.slice();
  for (let step = 0; step < FEATHER_STEPS; step++) {
    const before = feathered.slice();
    for (let vertex = 0; vertex < model.count; vertex++) {
      let sum = 0;
      for (let at = starts[vertex]; at < starts[vertex + 1]; at++) sum += before[neighbors[at]];
      feathered[vertex] = Math.min(before[vertex], sum / Math.max(starts[vertex + 1] - starts[vertex], 1));
    }
  }
  return feathered.map((weight, vertex) => model.openings[vertex] ? weights[vertex] : weight);
}

/** The greatest 1 / depth by pixels and by blocks of them, and the blocks that show mouth or eyes. */
function depthMap(model, points) {
  const nearest = new Float32Array(DEPTH_MAP_PX ** 2), opens = new Uint8Array(DEPTH_MAP_PX ** 2), { insides } = model;
  rasterize(points, 3, model.triangles, DEPTH_MAP_PX, (pixel, a, b, c, second, third) => {
    const nearness = (1 - second - third) * points[3 * a + 2] + second * points[3 * b + 2] + third * points[3 * c + 2];
    if (nearness > nearest[pixel]) { nearest[pixel] = nearness; opens[pixel] = insides[a] & insides[b] & insides[c]; }
  });
  const end = DEPTH_MAP_PX / BLOCK_PX, blocks = new Float32Array(end ** 2), openBlocks = new Uint8Array(end ** 2);
  for (let pixel = 0; pixel < nearest.length; pixel++) {
    const block = blockOf(Math.floor(pixel / DEPTH_MAP_PX)) * end + blockOf(pixel % DEPTH_MAP_PX);
    blocks[block] = Math.max(blocks[block], nearest[pixel]); openBlocks[block] |= opens[pixel];
  }
  return { nearest, blocks, openBlocks };
}

/** How far (pixels of the depth map) each second pixel in each direction lies from the head's outline: two passes of steps. */
function distances(nearest) {
  const side = DEPTH_MAP_PX / 2, result = new Float32Array(side ** 2), straight = 2, diagonal = 2 * Math.SQRT2;
  const at = (row, column) => row < 0 || row >= side || column < 0 || column >= side ? 0 : result[row * side + column];
  for (const step of [1, -1]) {
    for (let i = 0; i < side; i++) {
      for (let j = 0; j < side; j++) {
        const row = step > 0 ? i : side - 1 - i, column = step > 0 ? j : side - 1 - j, pixel = row * side + column;
        const own = step < 0 ? result[pixel] : nearest[2 * (row * DEPTH_MAP_PX + column)] > 0 ? side : 0;
        result[pixel] = Math.min(own, at(row, column - step) + straight, at(row - step, column) + straight,
          at(row - step, column - 1) + diagonal, at(row - step, column + 1) + diagonal);
      }
    }
  }
  return result;
}

/** Carry the ratio of photo to model on over the surface, and from side to side: a screened Poisson equation, by conjugate gradients. */
function fillColors(model, { normalsCamera }, places, weights, coefficients, photo) {
  const lit = model.albedo(coefficients), light = model.irradiance(coefficients, normalsCamera), { mirror } = model;
  const total = weights.reduce((sum, weight) => sum + weight, 0), means = [0, 0, 0], even = [0, 0, 0];
  // Even light: behind the head, its estimate is a mere guess.
  if (total) light.forEach((value, at) => { even[at % 3] += weights[Math.floor(at / 3)] * value / total; });
  for (let at = 0; at < lit.length; at++) lit[at] = clamp(lit[at] * (total ? even[at % 3] : light[at]));
  if (!total) return lit;
  const ratio = new Float32Array(lit.length), color = new Float32Array(3), clipped = x => Math.min(Math.max(x, -RATIO_LOG_MAX), RATIO_LOG_MAX);
  for (let at = 0; at < lit.length; at += 3) {
    lookUp(photo, places[at], places[at + 1], color, 0);
    for (let k = 0; k < 3; k++) {
      ratio[at + k] = clipped(Math.log((color[k] / 255 + DARK) / (lit[at + k] + DARK)));
      means[k] += weights[at / 3] * ratio[at + k] / total;
    }
  }
  const mirrored = weights.map((weight, vertex) => MIRRORED * (1 - weight) * weights[mirror[vertex]]);
  const known = weights.map((weight, vertex) => weight + mirrored[vertex]);
  const carried = [0, 1, 2].map(k => solve(model, known, weights.map((weight, vertex) =>
    weight * (ratio[3 * vertex + k] - means[k]) + mirrored[vertex] * (ratio[3 * mirror[vertex] + k] - means[k]))));
  return lit.map((value, at) => clamp(value * Math.exp(carried[at % 3][Math.floor(at / 3)] + means[at % 3])));
}

/** Solve (weights + DECAY + SMOOTHNESS * Laplacian of the mesh) x = right. */
function solve({ mesh_starts: starts, mesh_neighbors: neighbors }, weights, right) {
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

/** Fill what shows no surface, where viewers filter across its rim, from the smallest square of 2, 4, 8, ... texels that has a color. */
function spread(texture) {
  const levels = [new Uint32Array(texture.buffer)], above = (at, side) => (at / side >> 1) * (side >> 1) + (at % side >> 1);
  for (let side = TEXTURE_PX; side > 1; side >>= 1) {
    const coarser = new Uint32Array((side >> 1) ** 2);
    levels.at(-1).forEach((color, at) => { coarser[above(at, side)] ||= color; });
    levels.push(coarser);
  }
  for (let level = levels.length - 2, side = 2; level >= 0; level--, side <<= 1) {
    levels[level].forEach((color, at) => { if (!color) levels[level][at] = levels[level + 1][above(at, side)]; });
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

const blockOf = pixel => Math.floor(pixel / BLOCK_PX);

const smoothstep = x => { x = clamp(x); return x * x * (3 - 2 * x); };
