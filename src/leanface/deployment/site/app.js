// The page: photo or webcam in, a head in 3D out.
import { encodeGlb } from "./glb.js";
import { Photo } from "./images.js";
import { loadReader, NoFace } from "./reader.js";
import { bounds, paintTexture, TEXTURE_PX } from "./texture.js";

const PHOTO_PX_MAX = 2048;  // longer side of what is worked with
const LIVE_PX_MAX = 640;  // the same of the webcam's frames
const RATE_MS = 1000;  // over which frames are counted
const DOTS = 3;  // one vertex in so many is drawn over the photo
const OVERLAY_PX = 400;  // height of a head there
// The smallest module with an instruction of WebAssembly SIMD.
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];

const $ = id => document.getElementById(id);
const video = document.querySelector("video");
const webgl = !!document.createElement("canvas").getContext("webgl2");
let reader, address, following = Promise.resolve();

function say(text, bad = false) { $("message").textContent = text; $("message").className = bad ? "bad" : ""; }

function working(now) { document.querySelectorAll("#choose button, #file").forEach(control => control.disabled = now); }

/** Keep all files for later, and let threads be used: both are the service worker's, which is there after one reload. */
async function install() {
  if (!navigator.serviceWorker) return;
  try {
    await navigator.serviceWorker.register("sw.js");
    await navigator.serviceWorker.ready;
  } catch {
    return;  // a private window, or a disk that is full: it works without
  }
  if (!crossOriginIsolated && !sessionStorage.getItem("reloaded")) {
    sessionStorage.setItem("reloaded", "once");
    location.reload();
    await new Promise(() => {});
  }
}

async function start() {
  if (typeof DecompressionStream === "undefined" || typeof WebAssembly === "undefined" || !WebAssembly.validate(Uint8Array.from(SIMD))) {
    say("This browser has no WebAssembly SIMD, so it cannot read photos. Use a current Chrome, Edge, Firefox or Safari, or `leanface " +
      "reconstruct` on a computer.", true);
    return null;
  }
  const limits = [];
  if (!webgl) limits.push("This browser has no WebGL, so heads are not shown in 3D here. You can still see them in the photo and download them.");
  if (!navigator.mediaDevices?.getUserMedia) limits.push("The webcam needs HTTPS or localhost. You can still choose a photo.");
  $("limits").textContent = limits.join(" ");
  $("limits").hidden = !limits.length;
  $("webcam").hidden = !navigator.mediaDevices?.getUserMedia;
  say("Loading 18 MB, once …");
  try {
    await install();
    say("Starting …");
    if (webgl) import("./model-viewer.min.js");
    reader = await loadReader();
  } catch (error) {
    say(`The page could not be loaded (${error.message}). Reload it, or try another browser.`, true);
    return null;
  }
  working(false);
  say("A photo with one large, upright face works best. You can also drop it anywhere on this page.");
  return reader;
}

/** The reader, as soon as it is loaded; null if it cannot be. */
export const ready = start();

/** Draw a picture, at most so many pixels long, upright, on white. */
async function pixelsOf(source, longest = PHOTO_PX_MAX) {
  const bitmap = await createImageBitmap(source), scale = Math.min(1, longest / Math.max(bitmap.width, bitmap.height));
  const canvas = Object.assign(document.createElement("canvas"), { width: Math.round(bitmap.width * scale), height: Math.round(bitmap.height * scale) });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  Object.assign(context, { fillStyle: "#fff", imageSmoothingQuality: "high" });
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

export async function show(source) {
  working(true);
  stop();
  await following.catch(() => {});  // the reader takes one picture at a time
  say("Reading the face …");
  try {
    const pixels = await pixelsOf(source).catch(() => { throw new NoFace("This is not a photo that the browser can read. Choose a JPEG, PNG or WebP."); });
    const begin = performance.now(), photo = new Photo(pixels), face = await reader.read(photo), painting = performance.now();
    const texture = new ImageData(paintTexture(reader.model, face.mesh, face.coefficients, photo), TEXTURE_PX);
    const glb = encodeGlb(reader.model, face.mesh, await jpeg(texture), TEXTURE_PX), end = performance.now();
    URL.revokeObjectURL(address);
    address = URL.createObjectURL(glb);
    $("mesh").href = address;
    draw(pixels, face);
    $("result").hidden = false;
    $("head").hidden = $("front").hidden = !webgl;
    if (webgl) $("head").src = address;
    const ms = time => `${Math.round(time)}\u00a0ms`, { detection, network, decode } = face.times;
    $("summary").textContent = `Finding the face took ${ms(detection)}, the network ${ms(network)}, the shape ${ms(decode)}, texture and file ${ms(end - painting)}.`;
    say(`Done in ${((end - begin) / 1000).toFixed(2)} s.${webgl ? " Drag the head to turn it." : ""}`);
  } catch (error) {
    $("result").hidden = true;
    say(error instanceof NoFace ? error.message : `Something went wrong (${error.message}). Try another photo.`, true);
    if (!(error instanceof NoFace)) console.error(error);
  } finally { working(false); }
}

async function jpeg(pixels) {
  const canvas = Object.assign(document.createElement("canvas"), { width: pixels.width, height: pixels.height });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  const blob = await new Promise(resolve => canvas.toBlob(resolve, "image/jpeg", 0.9));
  return new Uint8Array(await blob.arrayBuffer());
}

/** The face in the photo, with what faces the camera of the surface, and the landmarks. */
function draw(pixels, face) {
  const { mesh } = face, [left, right, top, bottom] = bounds(mesh.photo), unit = (bottom - top) / OVERLAY_PX;
  const canvas = Object.assign($("overlay"), { width: 1.4 * (right - left) / unit, height: 1.4 * OVERLAY_PX }), context = canvas.getContext("2d");
  const x0 = left - 0.2 * (right - left), y0 = top - 0.2 * (bottom - top);
  const whole = Object.assign(document.createElement("canvas"), { width: pixels.width, height: pixels.height });
  whole.getContext("2d").putImageData(pixels, 0, 0);
  context.drawImage(whole, x0, y0, canvas.width * unit, canvas.height * unit, 0, 0, canvas.width, canvas.height);
  drawSurface(context, face, x0, y0, unit);
}

/** Dots on a picture whose left upper corner is (x0, y0) of the photo, and whose pixels are `unit` of the photo's. */
function drawSurface(context, { mesh, landmarks }, x0, y0, unit) {
  const dot = (x, y, size) => context.fillRect((x - x0) / unit - size / 2, (y - y0) / unit - size / 2, size, size);
  context.fillStyle = "rgb(120 220 255 / 70%)";
  for (let at = 0; at < mesh.photo.length; at += 3 * DOTS) {
    if (mesh.normalsCamera[at + 2] > 0.1) dot(mesh.photo[at], mesh.photo[at + 1], 1.5);
  }
  context.fillStyle = "#ff3b30";
  for (const [x, y] of landmarks) dot(x, y, 6);
}

/** Follow the face from frame to frame until the camera stops. */
async function follow() {
  const stream = video.srcObject, canvas = $("live"), context = canvas.getContext("2d"), times = [];
  for (let last = null; video.srcObject === stream;) {
    if (!stream.active) throw new Error("The camera has stopped.");
    const pixels = await pixelsOf(video, LIVE_PX_MAX);
    try {
      last = await reader.read(new Photo(pixels), last);
    } catch (error) {
      if (!(error instanceof NoFace)) throw error;
      last = null;
    }
    if (video.srcObject !== stream) return;
    Object.assign(canvas, { width: pixels.width, height: pixels.height });
    context.putImageData(pixels, 0, 0);
    if (last) drawSurface(context, last, 0, 0, 1);
    if (!times.length) $("camera").scrollIntoView({ block: "nearest" });  // on a phone, the buttons are further down
    const now = performance.now();
    times.push(now);
    while (times[0] < now - RATE_MS) times.shift();
    $("rate").textContent = `${last ? "" : "No face in view. "}${times.length} frame${times.length === 1 ? "" : "s"} in the last second`;
    await new Promise(resolve => setTimeout(resolve, 0));  // clicks come first
  }
}

function stop() {
  video.srcObject?.getTracks().forEach(track => track.stop());
  video.srcObject = null;
  $("camera").hidden = true;
}

const CAMERA_ERRORS = {
  NotAllowedError: "The camera was not allowed. Allow it in the browser's settings for this page",
  NotFoundError: "There is no camera here. Connect one",
  NotReadableError: "The camera is in use by another program. Close that",
};

$("webcam").addEventListener("click", async () => {
  stop();
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: { ideal: 1280 } } });
    await video.play();
    $("camera").hidden = false;
    say("Look into the camera. The photo that you take becomes the head.");
    following = follow();
    await following;
  } catch (error) {
    stop();
    say(`${CAMERA_ERRORS[error.name] ?? "The camera does not start, or it stopped. Try again"}, or choose a photo.`, true);
  }
});
$("stop").addEventListener("click", stop);
$("shoot").addEventListener("click", async () => {
  show(await createImageBitmap(video));
});
$("file").addEventListener("change", () => { if ($("file").files[0]) show($("file").files[0]); $("file").value = ""; });
document.querySelectorAll(".example").forEach(button => button.addEventListener("click", () => show(button.firstChild)));
addEventListener("dragover", event => event.preventDefault());
addEventListener("drop", event => { event.preventDefault(); if (reader && event.dataTransfer.files[0]) show(event.dataTransfer.files[0]); });
$("front").addEventListener("click", () => {
  Object.assign($("head"), { cameraOrbit: "0deg 90deg auto", cameraTarget: "auto auto auto", fieldOfView: "auto" });
  $("head").jumpCameraToGoal?.();
});
