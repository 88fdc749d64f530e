// Turns a picture or a text into the sequence that the classifier reads.
//
// The numbers are those of t2aux_ondevice's preprocessing.py and images.py, to the last bit: the
// resize is Pillow's bilinear one, in the same fixed-point arithmetic. Its parameters are
// in the export's metadata.json, entry `preprocessing`.

const PRECISION_BITS = 22; // Of Pillow's weights for 8-bit channels.
// White space of Python's str.isspace that JavaScript's \s lacks, and the other way around.
const VISIBLE = /[^\s\x1c-\x1f\x85]|\ufeff/u;

/**
 * The sequence of a picture.
 *
 * @param {{data: Uint8Array | Uint8ClampedArray, width: number, height: number,
 *     channels: number}} picture Grey or RGB, row by row.
 * @param {object} preprocessing Of metadata.json.
 * @param {number[] | null} permutation Step t is pixel permutation[t]; null for raster order.
 * @return {Float32Array} [T * C] in [0, 1], T = (side + 2 * border) ** 2.
 */
export function imageSequence(picture, preprocessing, permutation) {
  const pixels = imagePixels(picture, preprocessing);
  const channels = preprocessing.channels;
  const sequence = new Float32Array(pixels.length);
  for (let step = 0; step < pixels.length / channels; step++) {
    const pixel = permutation ? permutation[step] : step;
    for (let c = 0; c < channels; c++) {
      sequence[step * channels + c] = pixels[pixel * channels + c] / 255;
    }
  }
  return sequence;
}

/** The pixels of a picture as the classifier sees it, in raster order: uint8 [T * C]. */
export function imagePixels(picture, { side, border, channels }) {
  let { data, width, height } = inColour(picture, channels);
  if (width !== side) {
    data = resizeRows(data, width, height, channels, side);
  }
  if (height !== side) {
    data = transposed(
      resizeRows(transposed(data, side, height, channels), height, side, channels, side),
      side, side, channels,
    );
  }
  const whole = side + 2 * border;
  const pixels = new Uint8Array(whole * whole * channels);
  for (let y = 0; y < side; y++) {
    const row = data.subarray(y * side * channels, (y + 1) * side * channels);
    pixels.set(row, ((y + border) * whole + border) * channels);
  }
  return pixels;
}

/** A picture from a canvas's ImageData, which must be opaque. */
export function pictureOf(imageData) {
  const { data, width, height } = imageData;
  const rgb = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) {
    rgb.set(data.subarray(i * 4, i * 4 + 3), i * 3);
  }
  return { data: rgb, width, height, channels: 3 };
}

/**
 * The ids of a text's tokens, cut at the length that the classifier was trained for.
 *
 * @param {string} text
 * @param {object} preprocessing Of metadata.json.
 * @return {Int32Array} [T], T >= 1.
 * @throws {Error} The text is empty or only white space.
 */
export function textIds(text, { tokens, vocabulary, max_length: limit }) {
  if (!VISIBLE.test(text)) {
    throw new Error("The text is empty: type at least one visible character.");
  }
  const characters = cut(Array.from(text), limit);
  if (tokens === "bytes") {
    return cut(Int32Array.from(new TextEncoder().encode(characters.join(""))), limit);
  }
  const ids = new Map(vocabulary.map((character, id) => [character, id]));
  return Int32Array.from(characters, (character) => ids.get(character) ?? 0);
}

/** Whether a text has more tokens than the classifier was trained for, so that `textIds` cuts it. */
export function isCut(text, { tokens, max_length: limit }) {
  const all = tokens === "bytes" ? new TextEncoder().encode(text) : Array.from(text);
  return limit !== null && all.length > limit;
}

function cut(values, limit) {
  return limit === null ? values : values.slice(0, limit);
}

function inColour(picture, channels) {
  const { data, width, height } = picture;
  if (picture.channels === channels) {
    return { data, width, height };
  }
  const made = new Uint8Array(width * height * channels);
  for (let i = 0; i < width * height; i++) {
    if (channels === 3) {
      made.fill(data[i], i * 3, i * 3 + 3);
    } else {
      const [r, g, b] = data.subarray(i * 3, i * 3 + 3);
      made[i] = (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;
    }
  }
  return { data: made, width, height };
}

function resizeRows(data, width, height, channels, size) {
  const made = new Uint8Array(size * height * channels);
  const weights = bilinearWeights(width, size);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < size; x++) {
      const { first, factors } = weights[x];
      for (let c = 0; c < channels; c++) {
        let sum = 2 ** (PRECISION_BITS - 1);
        for (let i = 0; i < factors.length; i++) {
          sum += data[(y * width + first + i) * channels + c] * factors[i];
        }
        const value = Math.floor(sum / 2 ** PRECISION_BITS);
        made[(y * size + x) * channels + c] = Math.min(255, Math.max(0, value));
      }
    }
  }
  return made;
}

// A triangle over the source pixels, as wide as the scale where the picture shrinks.
function bilinearWeights(from, to) {
  const scale = from / to;
  const support = Math.max(scale, 1);
  return Array.from({ length: to }, (_, x) => {
    const centre = (x + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(from, Math.trunc(centre + support + 0.5));
    const raw = [];
    for (let i = first; i < end; i++) {
      raw.push(Math.max(0, 1 - Math.abs((i - centre + 0.5) * (1 / support))));
    }
    const total = raw.reduce((sum, weight) => sum + weight, 0);
    const factors = raw.map((w) => Math.trunc((w / total) * 2 ** PRECISION_BITS + 0.5));
    return { first, factors };
  });
}

function transposed(data, width, height, channels) {
  const made = new Uint8Array(data.length);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < channels; c++) {
        made[(x * height + y) * channels + c] = data[(y * width + x) * channels + c];
      }
    }
  }
  return made;
}
