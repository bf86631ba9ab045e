// Everything between a photo and a head: loads the networks and the morphable model, and runs them.
import * as ort from "./ort.min.js";
import { cropFace, turnedBack } from "./alignment.js";
import { Detector, mean } from "./detector.js";
import { HeadModel, readTensors } from "./head.js";
import { planes } from "./images.js";

const MISFIT_MAX = 0.5;  // see leanface.reconstruction.lean_face
const THREADS_MAX = 4;

export class NoFace extends Error {}

/** Load a file; one that ends in .gz is unpacked, unless the server has done so. */
async function load(address) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`${address}: ${response.status} ${response.statusText}`);
  const bytes = new Uint8Array(await response.arrayBuffer());
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
}

/** Open a network: planes in, arrays of outputs out. */
async function openNetwork(bytes) {
  const session = await ort.InferenceSession.create(bytes, {
    executionProviders: ["wasm"],
    // Threads that spin while they wait are no faster, and thrice as slow where others use the processor.
    extra: { session: { intra_op: { allow_spinning: "0" } } },
  });
  const [input] = session.inputNames, outputs = session.outputNames;
  return async (values, size) => {
    const results = await session.run({ [input]: new ort.Tensor("float32", values, [1, 3, size, size]) });
    return outputs.map(name => results[name].data);
  };
}

/** Load the reader. */
export async function loadReader() {
  const [about, wasm, ...files] = await Promise.all([
    fetch("about.json").then(response => response.json()), load("ort.wasm.gz"), load("head.safetensors.gz"), load("network.onnx"),
    load("short_range.onnx"), load("landmarks.onnx"),
  ]);
  ort.env.wasm.wasmBinary = wasm.buffer;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, THREADS_MAX) : 1;
  ort.env.logLevel = "error";
  const [network, blazeface, mesh] = [await openNetwork(files[1]), await openNetwork(files[2]), await openNetwork(files[3])];
  return new Reader(about.image_size, network, new Detector(blazeface, mesh), new HeadModel(readTensors(files[0])));
}

export class Reader {
  constructor(size, network, detector, model) {
    Object.assign(this, { size, network, detector, model });
  }

  /** The 257 coefficients of a crop, RGB bytes (size x size x 3). */
  async coefficients(crop) {
    const [answer] = await this.network(planes(crop, 3, 1 / 255), this.size);
    return Float32Array.from(answer);
  }

  /**
   * Read the largest face of a photo.
   * @param last what was read in the frame before, of a film: its face is followed as long as it is there.
   * @returns { landmarks: as found, points, alignment, coefficients, mesh, times: of the steps in ms }
   */
  async read(photo, last = null) {
    const times = {}, start = performance.now();
    const face = (last && await this.detector.follow(photo, last)) ?? await this.detector.largest(photo);
    if (!face) throw new NoFace("No face found. Use an upright photo in which both eyes and the mouth show, and the face is large.");
    const { crop, alignment, roll } = cropFace(photo, face.landmarks, this.model.template, this.size);
    times.detection = performance.now() - start;
    const read = await this.coefficients(crop);
    times.network = performance.now() - start - times.detection;
    const coefficients = roll ? turnedBack(read, roll) : read;
    const mesh = this.model.decode(coefficients, alignment, this.size);
    times.decode = performance.now() - start - times.detection - times.network;
    if (misfit(this.model.landmarksOf(mesh), face.landmarks) > MISFIT_MAX) {
      throw new NoFace("What looked like a face could not be read. It may be hidden, blurred or turned too far; use another photo.");
    }
    return { ...face, alignment, coefficients, mesh, times };
  }
}

/** How far the landmarks lie from where they were found, in mean distances of those from their middle. */
function misfit(landmarks, found) {
  const middle = mean(found), average = values => values.reduce((sum, value) => sum + value, 0) / values.length;
  const apart = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
  return average(landmarks.map((point, index) => apart(point, found[index]))) / average(found.map(point => apart(point, middle)));
}
