// Keeps the site's files, so that it works without a network, and isolates the page, so that WebAssembly may use threads.
const VERSION = "@VERSION@";  // of the files' content: a new export replaces the old one
const FILES = ["./", "@FILES@"];
const ISOLATION = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };
const PREFIX = `leanface ${registration.scope} `;

addEventListener("install", event => event.waitUntil((async () => {
  const cache = await caches.open(PREFIX + VERSION);
  await cache.addAll(FILES.map(file => new Request(file, { cache: "no-cache" })));
  await skipWaiting();
})()));

addEventListener("activate", event => event.waitUntil((async () => {
  const old = (await caches.keys()).filter(name => name.startsWith(PREFIX) && name !== PREFIX + VERSION);
  await Promise.all(old.map(name => caches.delete(name)));
  await clients.claim();
})()));

addEventListener("fetch", event => {
  if (new URL(event.request.url).origin === location.origin) event.respondWith(answer(event.request));
});

async function answer(request) {
  const cache = await caches.open(PREFIX + VERSION);
  const response = await cache.match(request, { ignoreSearch: true }) ?? await fetch(request);
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(ISOLATION)) headers.set(name, value);
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
