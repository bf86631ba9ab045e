// A textured head as a GLB file, as in leanface.face.mesh. Source: glTF 2.0 (Khronos), 4.4 and 5.

const ARRAY_BUFFER = 34962, ELEMENT_ARRAY_BUFFER = 34963, FLOAT = 5126, UNSIGNED_SHORT = 5123;
const LINEAR = 9729, LINEAR_MIPMAP_LINEAR = 9987, REPEAT = 10497;

/** @param jpeg the texture's bytes. */
export function encodeGlb(model, { vertices, normals }, jpeg, size) {
  const corners = values => Float32Array.from({ length: 3 * model.corner_vertex.length }, (_, at) =>
    values[3 * model.corner_vertex[Math.floor(at / 3)] + at % 3]);
  const positions = corners(vertices), axis = k => positions.filter((_, at) => at % 3 === k);
  const least = k => axis(k).reduce((a, b) => Math.min(a, b)), most = k => axis(k).reduce((a, b) => Math.max(a, b));
  const parts = [], views = [], accessors = [];
  let length = 0;
  const view = (bytes, about = {}) => {
    const padded = new Uint8Array(Math.ceil(bytes.byteLength / 4) * 4);
    padded.set(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength));
    parts.push(padded);
    views.push({ buffer: 0, byteOffset: length, byteLength: bytes.byteLength, ...about });
    length += padded.length;
    return views.length - 1;
  };
  const accessor = (values, componentType, type, width, target, about = {}) => {
    accessors.push({ bufferView: view(values, { target }), componentType, type, count: values.length / width, ...about });
    return accessors.length - 1;
  };
  const attributes = {
    POSITION: accessor(positions, FLOAT, "VEC3", 3, ARRAY_BUFFER, { min: [0, 1, 2].map(least), max: [0, 1, 2].map(most) }),
    NORMAL: accessor(corners(normals), FLOAT, "VEC3", 3, ARRAY_BUFFER),
    TEXCOORD_0: accessor(model.corner_pixels.map(pixel => (pixel + 0.5) / size), FLOAT, "VEC2", 2, ARRAY_BUFFER),
  };
  const indices = accessor(model.corner_triangles, UNSIGNED_SHORT, "SCALAR", 1, ELEMENT_ARRAY_BUFFER);
  const image = view(jpeg);
  const text = new TextEncoder().encode(JSON.stringify({
    asset: { version: "2.0", generator: "LeanFace" },
    scene: 0, scenes: [{ nodes: [0] }], nodes: [{ mesh: 0, name: "face" }],
    meshes: [{ name: "face", primitives: [{ attributes, indices, material: 0 }] }],
    materials: [{ name: "face", pbrMetallicRoughness: { baseColorTexture: { index: 0 }, metallicFactor: 0, roughnessFactor: 0.8 } }],
    textures: [{ source: 0, sampler: 0 }],
    samplers: [{ magFilter: LINEAR, minFilter: LINEAR_MIPMAP_LINEAR, wrapS: REPEAT, wrapT: REPEAT }],
    images: [{ bufferView: image, mimeType: "image/jpeg" }],
    accessors, bufferViews: views, buffers: [{ byteLength: length }],
  }));
  const json = new Uint8Array(Math.ceil(text.length / 4) * 4).fill(32);
  json.set(text);
  const header = (...words) => new Uint8Array(Uint32Array.from(words).buffer);
  const [GLTF, JSON_CHUNK, BINARY_CHUNK] = [0x46546c67, 0x4e4f534a, 0x004e4942];
  return new Blob([
    header(GLTF, 2, 28 + json.length + length), header(json.length, JSON_CHUNK), json, header(length, BINARY_CHUNK), ...parts,
  ], { type: "model/gltf-binary" });
}
