// The pad that a visitor draws on, and the picture that its strokes make.

// How the pictures of each data set are framed. `fill` is the part of the side that the ink covers
// along its longer axis, `pen` the thickness of the line as a part of the side.
//
// MNIST's digits fill 20 of 28 pixels around their centre of mass; so do most sets that came after
// it. Those of scikit-learn fill the side and are centred by their box, and a 1 has as much ink as
// an 8: a third of the picture is white.
const FRAMES = { digits: { fill: 1, ink: 0.3, pens: [0.1, 0.3], byMass: false } };
const FRAME = { fill: 20 / 28, pens: [0.1], byMass: true };
// Of the rendered picture for each pixel that the classifier sees.
const DETAIL = 8;
const PEN_STEP = 0.01;

/** Draws strokes where a mouse, a finger or a pen goes. */
export class Pad {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {() => void} changed Called after each stroke.
   */
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.strokes = [];
    this.drawing = null;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || this.drawing !== null) {
        return;
      }
      event.preventDefault();
      canvas.setPointerCapture(event.pointerId);
      this.drawing = event.pointerId;
      this.strokes.push([this.#place(event)]);
      this.draw();
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.pointerId !== this.drawing) {
        return;
      }
      const events = event.getCoalescedEvents?.() ?? [];
      const places = (events.length ? events : [event]).map((each) => this.#place(each));
      this.strokes.at(-1).push(...places);
      this.draw();
    });
    for (const kind of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(kind, (event) => {
        if (event.pointerId === this.drawing) {
          this.drawing = null;
          changed();
        }
      });
    }
    this.draw();
  }

  get isEmpty() {
    return this.strokes.length === 0;
  }

  clear() {
    this.strokes = [];
    this.draw();
  }

  draw() {
    const { canvas } = this;
    paint(canvas, this.strokes, ([x, y]) => [x * canvas.width, y * canvas.height],
      canvas.width * 0.07);
  }

  #place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }
}

/**
 * Renders strokes as pictures of the data are: moved to the middle, of their size, and with lines of
 * their thickness, however large and where they were drawn.
 *
 * @param {number[][][]} strokes Points [x, y] by stroke.
 * @param {object} preprocessing Of metadata.json.
 * @return {ImageData} White on black.
 */
export function framed(strokes, { name, side }) {
  const { fill, ink, pens, byMass } = FRAMES[name] ?? FRAME;
  const size = side * DETAIL;
  const points = strokes.flat();
  const [left, right] = extent(points.map(([x]) => x));
  const [top, bottom] = extent(points.map(([, y]) => y));
  const middle = [(left + right) / 2, (top + bottom) / 2];
  const canvas = new OffscreenCanvas(size, size);
  const render = (pen, shift = [0, 0]) => {
    const scale = (size * (fill - pen)) / Math.max(right - left, bottom - top, 0.05);
    const place = (point) => point.map((v, i) => (v - middle[i]) * scale + size / 2 - shift[i]);
    return paint(canvas, strokes, place, size * pen).getImageData(0, 0, size, size);
  };
  let [pen, thickest] = pens;
  // The thickest line that leaves enough of the picture black.
  while (pen + PEN_STEP <= thickest && inkOf(render(pen + PEN_STEP)).part <= ink) {
    pen += PEN_STEP;
  }
  const picture = render(pen);
  return byMass ? render(pen, inkOf(picture).offset) : picture;
}

function extent(values) {
  return values.reduce(([least, most], v) => [Math.min(least, v), Math.max(most, v)],
    [Infinity, -Infinity]);
}

// How much of a picture is ink, and how far its centre of mass is from the middle.
function inkOf({ data, width, height }) {
  const sums = [0, 0, 0];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const ink = data[(y * width + x) * 4];
      sums[0] += ink;
      sums[1] += ink * (x + 0.5);
      sums[2] += ink * (y + 0.5);
    }
  }
  const offset = [sums[1] / sums[0] - width / 2, sums[2] / sums[0] - height / 2];
  return { part: sums[0] / (255 * width * height), offset };
}

function paint(canvas, strokes, place, width) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#000";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.strokeStyle = "#fff";
  context.lineWidth = width;
  context.lineCap = context.lineJoin = "round";
  for (const stroke of strokes) {
    context.beginPath();
    stroke.map(place).forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
    // A line from a point to itself is a dot.
    context.lineTo(...place(stroke.at(-1)));
    context.stroke();
  }
  return context;
}
