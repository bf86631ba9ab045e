// The morphable model: 257 coefficients to a head in 3D, as in leanface.face. Lengths in meters; x right, y up, z towards
// the camera. Arrays of vertices are flat: x, y, z of the first, then of the second, ...

const IDENTITY_AND_EXPRESSION = [0, 144], ALBEDO = [144, 224], ANGLES = [224, 227], LIGHTING = [227, 254], TRANSLATION = [254, 257];
const FOCAL_PX = 1015, REFERENCE_PX = 224, DISTANCE_M = 1, METERS_PER_DM = 0.1;

const A = [Math.PI, 2 * Math.PI / Math.sqrt(3), 2 * Math.PI / Math.sqrt(8)];
const C = [1 / Math.sqrt(4 * Math.PI), Math.sqrt(3 / (4 * Math.PI)), 3 * Math.sqrt(5) / Math.sqrt(12 * Math.PI)];
const [CONSTANT, LINEAR, QUADRATIC] = A.map((a, index) => a * C[index]);  // factors of light's bands

const TYPES = { F32: Float32Array, I32: Int32Array, I8: Int8Array, U8: Uint8Array, U16: Uint16Array };

/** Read a file in the format of safetensors: { name: typed array }. */
export function readTensors(bytes) {
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true)), start = 8 + length;
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, start)));
  return Object.fromEntries(Object.entries(header).map(([name, { dtype, data_offsets: [from, to] }]) =>
    [name, new TYPES[dtype](bytes.slice(start + from, start + to).buffer)]));
}

export class HeadModel {
  /** @param tensors what `leanface export web` wrote of the morphable model. */
  constructor(tensors) {
    Object.assign(this, tensors);
    this.count = this.mean_albedo.length / 3;
    this.template = Array.from({ length: 5 }, (_, index) => Array.from(tensors.template.slice(2 * index, 2 * index + 2)));
  }

  /**
   * Decode one face that was read from a crop of `size` pixels.
   * @param alignment crop = scale * photo + (tx, ty).
   * @returns { vertices, normals: without pose; camera, normalsCamera: with it; photo: x and y (px), and 1 / depth }
   */
  decode(coefficients, alignment, size) {
    const vertices = this.shape(coefficients), normals = this.normals(vertices), rotation = rotationOf(coefficients);
    const moved = coefficients.slice(...TRANSLATION).map(x => METERS_PER_DM * x);
    const camera = turned(vertices, rotation, moved), photo = new Float32Array(camera.length);
    const focal = FOCAL_PX * size / REFERENCE_PX, center = (size - 1) / 2, { scale, tx, ty } = alignment;
    for (let at = 0; at < camera.length; at += 3) {
      const nearness = 1 / (DISTANCE_M - camera[at + 2]);
      photo[at] = (camera[at] * nearness * focal + center - tx) / scale;
      photo[at + 1] = (-camera[at + 1] * nearness * focal + center - ty) / scale;
      photo[at + 2] = nearness;
    }
    return { vertices, normals, camera, normalsCamera: turned(normals, rotation, [0, 0, 0]), photo };
  }

  /** The five landmarks in the photo. */
  landmarksOf({ photo }) {
    return Array.from(this.landmarks, vertex => [photo[3 * vertex], photo[3 * vertex + 1]]);
  }

  /** Vertices without pose: the coarse mesh's, then subdivided. */
  shape(coefficients) {
    const coarse = this.coarse_mean.slice();
    add(coarse, coefficients.slice(...IDENTITY_AND_EXPRESSION), this.components, this.component_scales);
    const vertices = new Float32Array(3 * this.count), { starts, indices, weights } = this;
    for (let row = 0; row < this.count; row++) {
      let x = 0, y = 0, z = 0;
      for (let entry = starts[row]; entry < starts[row + 1]; entry++) {
        const weight = METERS_PER_DM * weights[entry], from = 3 * indices[entry];
        x += weight * coarse[from]; y += weight * coarse[from + 1]; z += weight * coarse[from + 2];
      }
      vertices[3 * row] = x; vertices[3 * row + 1] = y; vertices[3 * row + 2] = z;
    }
    return vertices;
  }

  /** Unit normals: the area-weighted mean of the adjacent triangles'. */
  normals(vertices) {
    const normals = new Float32Array(vertices.length), { triangles } = this;
    for (let t = 0; t < triangles.length; t += 3) {
      const a = 3 * triangles[t], b = 3 * triangles[t + 1], c = 3 * triangles[t + 2];
      const ux = vertices[b] - vertices[a], uy = vertices[b + 1] - vertices[a + 1], uz = vertices[b + 2] - vertices[a + 2];
      const vx = vertices[c] - vertices[a], vy = vertices[c + 1] - vertices[a + 1], vz = vertices[c + 2] - vertices[a + 2];
      const x = uy * vz - uz * vy, y = uz * vx - ux * vz, z = ux * vy - uy * vx;
      for (const to of [a, b, c]) { normals[to] += x; normals[to + 1] += y; normals[to + 2] += z; }
    }
    for (let at = 0; at < normals.length; at += 3) {
      const length = Math.hypot(normals[at], normals[at + 1], normals[at + 2]) || 1;
      normals[at] /= length; normals[at + 1] /= length; normals[at + 2] /= length;
    }
    return normals;
  }

  /** The head's colors in [0, 1] without light. */
  albedo(coefficients) {
    const colors = this.mean_albedo.slice();
    add(colors, coefficients.slice(...ALBEDO), this.albedo_components, this.albedo_scales);
    return colors.map(clamp);
  }

  /** The light that falls on each vertex, as the network read it. */
  irradiance(coefficients, normalsCamera) {
    const result = new Float32Array(normalsCamera.length), light = coefficients.slice(...LIGHTING);
    for (let at = 0; at < result.length; at += 3) {
      const x = normalsCamera[at], y = normalsCamera[at + 1], z = normalsCamera[at + 2];
      const bands = [
        CONSTANT, -LINEAR * y, LINEAR * z, -LINEAR * x, QUADRATIC * x * y, -QUADRATIC * y * z,
        0.5 / Math.sqrt(3) * QUADRATIC * (3 * z * z - 1), -QUADRATIC * x * z, 0.5 * QUADRATIC * (x * x - y * y),
      ];
      for (let k = 0; k < 3; k++) {
        for (let band = 0; band < 9; band++) result[at + k] += bands[band] * light[3 * band + k];
        result[at + k] = Math.max(result[at + k], 0);
      }
    }
    return result;
  }
}

export const clamp = x => Math.min(Math.max(x, 0), 1);

/** sum += factors x components, of which each row has a scale of its own. */
function add(sum, factors, components, scales) {
  factors.forEach((factor, row) => {
    const gain = factor * scales[row], from = row * sum.length;
    for (let at = 0; at < sum.length; at++) sum[at] += gain * components[from + at];
  });
}

/** Rows of roll @ yaw @ pitch. */
function rotationOf(coefficients) {
  const angles = Array.from(coefficients.slice(...ANGLES)), [cx, cy, cz] = angles.map(Math.cos), [sx, sy, sz] = angles.map(Math.sin);
  return [
    [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
    [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
    [-sy, cy * sx, cy * cx],
  ];
}

function turned(vectors, rotation, shift) {
  const result = new Float32Array(vectors.length), [r, s, t] = rotation;
  for (let at = 0; at < vectors.length; at += 3) {
    const x = vectors[at], y = vectors[at + 1], z = vectors[at + 2];
    result[at] = r[0] * x + r[1] * y + r[2] * z + shift[0];
    result[at + 1] = s[0] * x + s[1] * y + s[2] * z + shift[1];
    result[at + 2] = t[0] * x + t[1] * y + t[2] * z + shift[2];
  }
  return result;
}
