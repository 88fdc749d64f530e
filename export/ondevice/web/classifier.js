// The exported network in LiteRT.js, one step of a sequence at a time, with explicit state.

import { Tensor, loadAndCompile, loadLiteRt } from "./litert/core/index.js";

/** A network that is loaded. */
export class Classifier {
  /**
   * Loads LiteRT.js, from this page's own folder, and a file.
   *
   * @param {Uint8Array} content The `.tflite` file.
   * @param {number} classes How many classes it has.
   */
  static async load(content, classes) {
    // Without threads: a sequence is one long chain of small steps.
    await loadLiteRt(new URL("./litert/wasm/", import.meta.url).href);
    return new Classifier(await loadAndCompile(content, { accelerator: "wasm" }), classes);
  }

  constructor(model, classes) {
    this.model = model;
    this.classes = classes;
    const inputs = new Map(model.getInputDetails().map((tensor) => [tensor.name, tensor]));
    this.stepShape = Array.from(inputs.get("segment").shape);
    inputs.delete("segment");
    // The other inputs are the state.
    this.stateShapes = Array.from(inputs, ([name, { shape }]) => [name, Array.from(shape)]);
  }

  /** Begins a sequence. */
  start() {
    return new Stream(this);
  }
}

/** A sequence that is being read. */
class Stream {
  constructor(classifier) {
    this.classifier = classifier;
    const zeros = (shape) => new Tensor(new Float32Array(shape.reduce((a, b) => a * b)), shape);
    this.state = Object.fromEntries(
      classifier.stateShapes.map(([name, shape]) => [name, zeros(shape)]));
  }

  /**
   * Reads the next step.
   *
   * @param {Float32Array | Int32Array} step Its values [C], or its id [1].
   * @return {Promise<Float32Array>} The classes' probabilities, should the sequence end here.
   */
  async read(step) {
    const { model, classes, stepShape } = this.classifier;
    const inputs = { segment: new Tensor(step.slice(), stepShape), ...this.state };
    const { probabilities, ...state } = await model.run(inputs);
    // LiteRT.js's memory is not garbage-collected.
    Object.values(inputs).forEach((tensor) => tensor.delete());
    this.state = state;
    const answer = probabilities.toTypedArray().slice();
    probabilities.delete();
    if (answer.length !== classes || !answer.every(Number.isFinite)) {
      throw new Error("The model does not return probabilities: build the page again.");
    }
    return answer;
  }

  /** Frees the state. */
  end() {
    Object.values(this.state).forEach((tensor) => tensor.delete());
    this.state = {};
  }
}
