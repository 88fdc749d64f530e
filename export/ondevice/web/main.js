// The page: loads the classifier, takes a drawing or a text, and shows how it is read.

import { Pad, framed } from "./drawing.js";
import { imageSequence, isCut, pictureOf, textIds } from "./preprocessing.js";
import { Bars, Chart, PixelView, TextView, best, percent } from "./views.js";

const MAX_READING = 4; // Seconds: a reading is slowed down to at most so many.
const SECONDS_A_STEP = 0.045;
const FRAME_MILLISECONDS = 12;

const NARROW = matchMedia("(max-width: 52rem)");

const element = (id) => document.getElementById(id);

/** What was read last, for tests of the page. */
export const page = {
  description: null,
  metadata: null,
  /** The picture before its preprocessing: data, width, height, channels. */
  picture: null,
  sequence: null,
  /** By step, the classes' probabilities. */
  probabilities: [],
};

let classifier;
let show; // Of a step: shows it in the view of what is read.
let pad = null;
let bars;
let chart;
let reading = 0; // Counts up: a reading ends when another begins.

function state(name, words) {
  document.body.dataset.state = name;
  if (words !== undefined) {
    element("status").textContent = words;
  }
}

function fail(error) {
  reading++;
  element("error").textContent = error.message;
  element("error").hidden = false;
  state("error", "");
}

/** Runs a button's action; an error is shown as a sentence. */
function guarded(action) {
  return async (...given) => {
    element("error").hidden = true;
    try {
      await action(...given);
    } catch (error) {
      fail(error);
    }
  };
}

async function fetched(name) {
  let response;
  try {
    response = await fetch(new URL(name, import.meta.url));
  } catch {
    throw new Error(`The file ${name} can't be fetched: is the server still running?`);
  }
  if (!response.ok) {
    throw new Error(`The file ${name} of this page is missing: build the page again.`);
  }
  return response;
}

async function load() {
  if (typeof WebAssembly !== "object") {
    throw new Error("This browser has no WebAssembly, which the classifier runs in: use another.");
  }
  page.description = await (await fetched("page.json")).json();
  page.metadata = await (await fetched("metadata.json")).json();
  const { classes } = page.metadata;
  bars = new Bars(element("bars"), classes);
  chart = new Chart(element("chart"), classes);
  if (page.metadata.kind === "text") {
    prepareText();
  } else {
    prepareImage();
  }
  const model = await fetched(page.description.model);
  const content = new Uint8Array(await model.arrayBuffer());
  try {
    const { Classifier } = await import("./classifier.js");
    classifier = await Classifier.load(content, classes.length);
  } catch (error) {
    const reason = String(error?.message ?? "a file of LiteRT.js is missing").split("\n")[0];
    throw new Error(`The classifier can't be loaded (${reason}): build the page again.`);
  }
  for (const id of ["classify", "clear", "open"]) {
    element(id).disabled = false;
  }
  document.querySelectorAll("#thumbnails button").forEach((b) => (b.disabled = false));
  const what = page.metadata.kind === "text" ? "Type something" : "Draw something";
  state("ready", `${what}, and choose Classify.`);
}

/** The name of the core; older exports do not have it. */
function network() {
  const core = page.metadata.model?.core;
  return core ? `A recurrent network (${core})` : "A recurrent network";
}

function prepareImage() {
  const { preprocessing, classes } = page.metadata;
  const { permutation, examples } = page.description;
  const digits = classes.every((name) => /^\d$/.test(name));
  element("title").textContent = digits ? "A digit, pixel by pixel" : "A picture, pixel by pixel";
  element("lead").textContent =
    `Draw ${digits ? "a digit" : "something"}. ${network()} reads it one pixel after the other, ` +
    "and says after each what it takes it for so far. It runs on this device: the drawing is not " +
    "sent anywhere.";
  element("pad").hidden = element("pixels").hidden = element("open").hidden = false;
  pad = new Pad(element("pad"), () => {});
  const view = new PixelView(element("pixels"), preprocessing, permutation);
  show = (step) => (step ? view.show(page.sequence, step) : view.clear());
  element("classify").addEventListener("click", guarded(() => {
    if (!pad.isEmpty) {
      return readPicture(pictureOf(framed(pad.strokes, preprocessing)));
    }
    if (page.picture === null) {
      throw new Error("There is nothing to classify: draw something first.");
    }
    return readPicture(page.picture);
  }));
  element("open").addEventListener("click", () => element("file").click());
  element("file").addEventListener("change", guarded(async ({ target }) => {
    const [file] = target.files;
    if (file) {
      const picture = await opened(file);
      target.value = "";
      onPad(picture);
      await readPicture(picture);
    }
  }));
  element("clear").addEventListener("click", guarded(clear));
  element("examples").hidden = examples.length === 0;
  element("thumbnails").append(...examples.map(thumbnail));
}

function prepareText() {
  const { preprocessing } = page.metadata;
  const unit = preprocessing.tokens === "bytes" ? "byte" : "character";
  element("title").textContent = `A text, ${unit} by ${unit}`;
  element("lead").textContent =
    `Type or paste a text. ${network()} reads it one ${unit} after the other, and says ` +
    "after each what it takes it for so far. It runs on this device: the text is not sent anywhere.";
  element("input-title").textContent = "Type";
  element("text").hidden = element("characters").hidden = false;
  const view = new TextView(element("characters"), preprocessing.tokens);
  let text = "";
  show = (step) => (step ? view.show(text, page.sequence.length, step) : view.clear());
  element("classify").addEventListener("click", guarded(() => {
    const { value } = element("text");
    const ids = textIds(value, preprocessing);
    text = value;
    return read(ids, 1, isCut(value, preprocessing));
  }));
  element("clear").addEventListener("click", guarded(clear));
}

function thumbnail({ label, width, height, pixels }) {
  const data = Uint8Array.from(atob(pixels), (character) => character.charCodeAt(0));
  const picture = { data, width, height, channels: 1 };
  const canvas = document.createElement("canvas");
  drawPicture(canvas, picture);
  const button = document.createElement("button");
  button.type = "button";
  button.disabled = true;
  button.title = button.ariaLabel = `A ${label} of the test set`;
  button.append(canvas);
  button.addEventListener("click", guarded(() => {
    onPad(picture);
    return readPicture(picture);
  }));
  return button;
}

function drawPicture(canvas, { data, width, height, channels }) {
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) {
      image.data[i * 4 + c] = data[i * channels + (channels === 3 ? c : 0)];
    }
    image.data[i * 4 + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function onPad(picture) {
  pad.clear();
  const small = document.createElement("canvas");
  drawPicture(small, picture);
  const { canvas } = pad;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = picture.width > canvas.width;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}

async function opened(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name} is damaged or no picture that this browser reads: choose another.`);
  }
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d");
  // Transparent parts show white.
  context.fillStyle = "#fff";
  context.fillRect(0, 0, bitmap.width, bitmap.height);
  context.drawImage(bitmap, 0, 0);
  return pictureOf(context.getImageData(0, 0, bitmap.width, bitmap.height));
}

function readPicture(picture) {
  const { preprocessing } = page.metadata;
  page.picture = picture;
  const sequence = imageSequence(picture, preprocessing, page.description.permutation);
  return read(sequence, preprocessing.channels);
}

/** Reads a sequence [T * size], and shows each step as it is read; it may be cut from a longer one. */
async function read(sequence, size, cut = false) {
  const mine = ++reading;
  const steps = sequence.length / size;
  page.sequence = sequence;
  page.probabilities = [];
  element("step").disabled = true;
  element("step").max = steps;
  state("reading", "Reading …");
  // In a layout of one column, the view is further down.
  element("seen").scrollIntoView({ block: NARROW.matches ? "start" : "nearest" });
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const seconds = calm ? 0 : Math.min(MAX_READING, steps * SECONDS_A_STEP);
  const stream = classifier.start();
  const begin = performance.now();
  try {
    while (page.probabilities.length < steps) {
      const now = await new Promise(requestAnimationFrame);
      if (mine !== reading) {
        return;
      }
      const part = seconds ? Math.max(0, now - begin) / (1000 * seconds) : 1;
      const due = Math.min(steps, Math.ceil(part * steps));
      // Steps that take longer than a frame continue in the next.
      const end = performance.now() + FRAME_MILLISECONDS;
      while (page.probabilities.length < due && performance.now() < end) {
        const at = page.probabilities.length * size;
        page.probabilities.push(await stream.read(sequence.subarray(at, at + size)));
      }
      showStep(page.probabilities.length);
    }
  } finally {
    stream.end();
  }
  element("step").disabled = false;
  const final = page.probabilities.at(-1);
  const name = page.metadata.classes[best(final)];
  const limit = cut ? `, from its first ${steps}` : "";
  state("done", `Taken for ${name}, with ${percent(Math.max(...final))}${limit}.`);
}

/** Shows the probabilities after a number of steps. */
function showStep(step) {
  const { classes, kind } = page.metadata;
  const total = Number(element("step").max);
  show(step);
  element("step").value = Math.max(1, step);
  const unit = kind === "text" ? page.metadata.preprocessing.tokens : "pixels";
  element("count").textContent =
    `${step.toLocaleString()} of ${total.toLocaleString()} ${unit} read`;
  const probabilities = step ? page.probabilities[step - 1] : null;
  bars.show(probabilities);
  element("answer").textContent = probabilities ? classes[best(probabilities)] : "\u00a0";
  chart.show(total, page.probabilities, step);
}

function clear() {
  reading++;
  page.picture = page.sequence = null;
  page.probabilities = [];
  pad?.clear();
  element("text").value = "";
  element("step").disabled = true;
  show(0);
  bars.show(null);
  chart.show(0, null, 0);
  element("count").textContent = element("answer").textContent = "\u00a0";
  state("ready", "Cleared.");
}

element("step").addEventListener("input", ({ target }) => showStep(Number(target.value)));
load().catch(fail);
