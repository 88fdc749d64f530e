// What the page shows of a reading: the sequence, the bars and the lines.

// Of the classes, by their number; also for colour-blind readers.
const COLOURS = [
  "#4c78a8", "#f58518", "#54a24b", "#d64550", "#2aa5a0",
  "#a45bb8", "#d9a908", "#8c6b52", "#f287a5", "#858c96",
];
const MOST_BARS = 10;
const LABEL_WIDTH = 76;

export const colourOf = (label) => COLOURS[label % COLOURS.length];
export const percent = (value) => `${(100 * value).toFixed(value < 0.9995 ? 1 : 0)} %`;

/** The most probable class of a step. */
export function best(probabilities) {
  return probabilities.indexOf(Math.max(...probabilities));
}

/** A picture's pixels as the classifier sees them; the steps to come are dim. */
export class PixelView {
  constructor(canvas, { side, border, channels }, permutation) {
    this.canvas = canvas;
    this.whole = side + 2 * border;
    this.channels = channels;
    // By pixel, the step that reads it.
    this.stepOf = new Uint32Array(this.whole ** 2);
    this.pixelOf = (step) => (permutation ? permutation[step] : step);
    this.stepOf.forEach((_, step) => (this.stepOf[this.pixelOf(step)] = step));
    this.small = new OffscreenCanvas(this.whole, this.whole);
    this.clear();
  }

  /** Shows a sequence [T * C] of which `read` steps were read. */
  show(sequence, read) {
    const context = this.small.getContext("2d");
    const image = context.createImageData(this.whole, this.whole);
    this.stepOf.forEach((step, pixel) => {
      for (let c = 0; c < 3; c++) {
        const from = step * this.channels + (this.channels === 3 ? c : 0);
        // Not read: faint on the paper's colour. Read: as it is.
        const value = 255 * sequence[from];
        image.data[pixel * 4 + c] = step < read ? value : 112 + 0.2 * value;
      }
      image.data[pixel * 4 + 3] = 255;
    });
    context.putImageData(image, 0, 0);
    this.#paint();
    if (read > 0 && read <= this.stepOf.length) {
      this.#mark(this.pixelOf(read - 1));
    }
  }

  clear() {
    const context = this.small.getContext("2d");
    context.fillStyle = "#707070";
    context.fillRect(0, 0, this.whole, this.whole);
    this.#paint();
  }

  #paint() {
    const { width, height } = this.canvas;
    const context = this.canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(this.small, 0, 0, width, height);
    const cell = width / this.whole;
    if (cell < 12) {
      return;
    }
    context.strokeStyle = "rgb(128 128 128 / 0.35)";
    context.lineWidth = 1;
    context.beginPath();
    for (let i = 1; i < this.whole; i++) {
      context.moveTo(i * cell, 0);
      context.lineTo(i * cell, height);
      context.moveTo(0, i * cell);
      context.lineTo(width, i * cell);
    }
    context.stroke();
  }

  #mark(pixel) {
    const cell = this.canvas.width / this.whole;
    const context = this.canvas.getContext("2d");
    const [x, y] = [(pixel % this.whole) * cell, Math.floor(pixel / this.whole) * cell];
    const width = Math.max(4, cell / 12);
    context.strokeStyle = "#ff4f1f";
    context.lineWidth = width;
    context.strokeRect(x + width / 2, y + width / 2, cell - width, cell - width);
  }
}

/** A text's tokens; the steps to come are dim. */
export class TextView {
  constructor(element, unit) {
    this.bytes = unit === "bytes";
    this.parts = ["read", "now", "unread"].map((name) => {
      const part = document.createElement("span");
      part.className = name;
      return part;
    });
    element.replaceChildren(...this.parts);
    this.element = element;
  }

  /** Shows a text of `total` tokens, of which `read` were read; more is cut off. */
  show(text, total, read) {
    const all = this.bytes ? new TextEncoder().encode(text) : Array.from(text);
    const tokens = all.slice(0, total);
    const join = (from, to) => {
      const part = tokens.slice(from, to);
      return this.bytes ? new TextDecoder().decode(part) : part.join("");
    };
    const now = Math.max(0, read - 1);
    this.parts[0].textContent = join(0, now);
    this.parts[1].textContent = join(now, read);
    this.parts[2].textContent = join(read);
    const [, mark] = this.parts;
    this.element.scrollTop = mark.offsetTop - this.element.clientHeight / 2;
  }

  clear() {
    this.parts.forEach((part) => (part.textContent = ""));
  }
}

/** A bar for each class, or for the most probable ones of many. */
export class Bars {
  constructor(list, classes) {
    this.classes = classes;
    this.rows = Array.from({ length: Math.min(classes.length, MOST_BARS) }, () => {
      const row = document.createElement("li");
      const [name, track, bar, value] = ["span", "span", "span", "span"].map((tag, i) => {
        const part = document.createElement(tag);
        part.className = ["name", "track", "bar", "value"][i];
        return part;
      });
      track.append(bar);
      row.append(name, track, value);
      list.append(row);
      return { row, name, bar, value };
    });
    this.show(null);
  }

  /** Shows the probabilities of a step, or none. */
  show(probabilities) {
    let order = this.classes.map((_, label) => label);
    if (probabilities && order.length > MOST_BARS) {
      order.sort((a, b) => probabilities[b] - probabilities[a]);
    }
    const first = probabilities ? best(probabilities) : -1;
    this.rows.forEach(({ row, name, bar, value }, i) => {
      const label = order[i];
      name.textContent = name.title = this.classes[label];
      bar.style.background = colourOf(label);
      bar.style.width = probabilities ? `${100 * probabilities[label]}%` : "0";
      value.textContent = probabilities ? percent(probabilities[label]) : "";
      row.classList.toggle("first", label === first);
    });
  }
}

/** Each class's probability along the sequence. */
export class Chart {
  constructor(canvas, classes) {
    this.canvas = canvas;
    this.classes = classes;
    this.last = [0, null, 0];
    new ResizeObserver(() => this.show(...this.last)).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
      this.show(...this.last));
  }

  /**
   * @param {number} steps T.
   * @param {Float32Array[] | null} rows The probabilities after each step that was read.
   * @param {number} cursor The step that the rest of the page shows, from 1 on; 0 for none.
   */
  show(steps, rows, cursor) {
    this.last = [steps, rows, cursor];
    const ratio = window.devicePixelRatio || 1;
    const width = this.canvas.clientWidth;
    const height = this.canvas.clientHeight;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const style = getComputedStyle(this.canvas);
    const area = { left: 44, right: width - LABEL_WIDTH, top: 10, bottom: height - 26 };
    const x = (step) => area.left + ((area.right - area.left) * step) / Math.max(steps, 1);
    const y = (value) => area.bottom - (area.bottom - area.top) * value;
    context.font = `12px ${style.fontFamily}`;
    this.#axes(context, style, area, x, y, steps);
    if (!rows?.length) {
      return;
    }
    // A few points for each pixel of the width are enough.
    const stride = Math.max(1, Math.floor(rows.length / (2 * width)));
    const final = rows.at(-1);
    this.classes.forEach((_, label) => {
      context.strokeStyle = colourOf(label);
      context.lineWidth = label === best(final) ? 2.5 : 1.5;
      context.lineJoin = "round";
      context.beginPath();
      for (let i = 0; i < rows.length; i += stride) {
        context.lineTo(x(i + 1), y(rows[i][label]));
      }
      context.lineTo(x(rows.length), y(final[label]));
      context.stroke();
    });
    this.#names(context, style, x(rows.length), y, area, final);
    if (cursor) {
      context.strokeStyle = style.color;
      context.lineWidth = 1;
      context.beginPath();
      context.moveTo(x(cursor), area.top);
      context.lineTo(x(cursor), area.bottom);
      context.stroke();
    }
  }

  #axes(context, style, area, x, y, steps) {
    context.lineWidth = 1;
    context.textBaseline = "middle";
    for (const value of [0, 0.5, 1]) {
      context.strokeStyle = style.getPropertyValue("--line");
      context.beginPath();
      context.moveTo(area.left, y(value));
      context.lineTo(area.right, y(value));
      context.stroke();
      context.fillStyle = style.getPropertyValue("--quiet");
      context.textAlign = "right";
      context.fillText(`${100 * value} %`, area.left - 6, y(value));
    }
    context.textBaseline = "top";
    const ticks = steps ? [0, 0.25, 0.5, 0.75, 1].map((part) => Math.round(part * steps)) : [];
    for (const step of new Set(ticks)) {
      context.textAlign = "center";
      context.fillText(step.toLocaleString(), x(step), area.bottom + 8);
    }
  }

  // The names of the classes beside their lines' ends, where they don't run into each other.
  #names(context, style, left, y, area, final) {
    context.textAlign = "left";
    context.textBaseline = "middle";
    const order = [...final.keys()].sort((a, b) => final[b] - final[a]);
    const taken = [];
    for (const label of order.slice(0, 4)) {
      const place = Math.min(area.bottom - 4, Math.max(area.top + 4, y(final[label])));
      if (final[label] < 0.03 || taken.some((other) => Math.abs(other - place) < 14)) {
        continue;
      }
      taken.push(place);
      context.fillStyle = colourOf(label);
      context.fillRect(left + 6, place - 4, 8, 8);
      context.fillStyle = style.color;
      context.fillText(shortened(context, this.classes[label]), left + 18, place);
    }
  }
}

function shortened(context, name) {
  const fits = (text) => context.measureText(text).width <= LABEL_WIDTH - 20;
  let end = name.length;
  while (end > 1 && !fits(end < name.length ? `${name.slice(0, end)}…` : name)) {
    end--;
  }
  return end < name.length ? `${name.slice(0, end)}…` : name;
}
