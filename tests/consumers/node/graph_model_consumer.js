// Loads TF.js models as people do, and writes down what they make of images.
//
// Usage: node graph_model_consumer.js JOBS.json RESULTS.json
//
// JOBS.json is a list of {"model": URL or directory, "images": file of float32, "shape",
// "nodes": names of nodes to ask for besides the output, "ways": of asking, all if not
// given}. RESULTS.json gets what was found for each, RESULTS.json.bin the float32 numbers of
// all, one after the other.
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const tf = require("@tensorflow/tfjs");
const wasm = require("@tensorflow/tfjs-backend-wasm");

const LIBRARY = path.dirname(require.resolve("@tensorflow/tfjs-backend-wasm/package.json"));

/** What the loader asks for, from files. */
function fromFiles(directory) {
  const read = (name) => fs.readFileSync(path.join(directory, name));
  const model = JSON.parse(read("model.json"));
  const [{ paths, weights }] = model.weightsManifest;
  const data = Buffer.concat(paths.map(read));
  return tf.io.fromMemory({
    modelTopology: model.modelTopology,
    format: model.format,
    signature: model.signature,
    userDefinedMetadata: model.userDefinedMetadata,
    weightSpecs: weights,
    weightData: data.buffer.slice(data.byteOffset, data.byteOffset + data.length),
  });
}

function load(model) {
  return /^https?:/.test(model)
    ? tf.loadGraphModel(model, { fromTFHub: true })
    : tf.loadGraphModel(fromFiles(model));
}

function images({ images: file, shape }) {
  const bytes = fs.readFileSync(file);
  const numbers = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  return tf.tensor(numbers, shape);
}

async function run(job, numbers) {
  const model = await load(job.model);
  const input = images(job);
  const ways = {
    predict: () => model.predict(input),
    "predict by the input's name": () => model.predict({ images: input }),
    "execute by the output's node": () => model.execute(input, model.outputs[0].name),
    "execute by the signature": () => model.execute({ images: input }, "default"),
  };
  for (const node of job.nodes ?? []) ways[node] = () => model.execute(input, node);
  const found = {
    inputs: model.inputs.map(({ name, shape, dtype }) => ({ name, shape, dtype })),
    outputs: model.outputs.map(({ name }) => name),
    metadata: model.metadata,
    backend: tf.getBackend(),
    tensors: {},
  };
  for (const way of job.ways ?? Object.keys(ways)) {
    const tensor = ways[way]();
    found.tensors[way] = { shape: tensor.shape, dtype: tensor.dtype };
    numbers.push(Buffer.from((await tensor.data()).slice().buffer));
    tensor.dispose();
  }
  input.dispose();
  model.dispose();
  return found;
}

async function main([jobs, results]) {
  wasm.setWasmPaths(`${LIBRARY}/dist/`);
  await tf.setBackend("wasm");
  const numbers = [];
  const found = [];
  for (const job of JSON.parse(fs.readFileSync(jobs))) {
    found.push(await run(job, numbers));
  }
  fs.writeFileSync(`${results}.bin`, Buffer.concat(numbers));
  fs.writeFileSync(results, JSON.stringify(found));
}

main(process.argv.slice(2)).then(() => process.exit(0), (error) => {
  console.error(error);
  process.exit(1);
});
