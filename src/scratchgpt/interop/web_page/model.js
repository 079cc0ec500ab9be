// The model in the browser (and in Node, which checks the export with this very file): tokenizer, chat template, and
// the graph of one decoding step with its key-value cache.

import * as ort from "./runtime/ort.wasm.min.mjs";
import { Template } from "./runtime/jinja.mjs";
import { Tokenizer } from "./runtime/tokenizers.mjs";

const CHUNK = 64; // tokens of a prompt at a time, so that the page stays alive between them

export class Model {
  // read: name of a file in model/ → its bytes, a Uint8Array.
  static async load(read) {
    const text = async (name) => new TextDecoder().decode(await read(name));
    const json = async (name) => JSON.parse(await text(name));
    const model = new Model();
    model.facts = await json("page.json");
    model.tokenizer = new Tokenizer(await json("tokenizer.json"), await json("tokenizer_config.json"));
    model.template = model.facts.chat ? new Template(await text("chat_template.jinja")) : null;
    ort.env.wasm.numThreads = 1; // more need headers that a plain file server does not send
    ort.env.wasm.wasmPaths = new URL("./runtime/", import.meta.url).href;
    ort.env.logLevel = "error";
    model.session = await ort.InferenceSession.create(await read("model.onnx"), { executionProviders: ["wasm"] });
    model.forget();
    return model;
  }

  encode(text) {
    return this.tokenizer.encode(text, { add_special_tokens: false }).ids;
  }

  decode(ids) {
    return ids.length ? this.tokenizer.decode(ids, { clean_up_tokenization_spaces: false }) : "";
  }

  // The ids of a conversation, up to where the answer begins.
  prompt(messages) {
    return this.encode(this.template.render({ messages, add_generation_prompt: true }));
  }

  forget() {
    const { num_layers, num_key_value_heads, head_dim } = this.facts;
    this.seen = []; // the ids that are in the cache
    this.past = {};
    for (let layer = 0; layer < num_layers; layer++) {
      for (const kind of ["key", "value"]) {
        const empty = new ort.Tensor("float32", new Float32Array(0), [1, num_key_value_heads, 0, head_dim]);
        this.past[`past_key_values.${layer}.${kind}`] = empty;
      }
    }
    this.found = null;
  }

  // What the model says after these ids: {logits [V], attention: layer, head → [T]}. Of ids that it saw before at the
  // beginning, nothing is computed again.
  async next(ids) {
    if (!this.seen.every((id, i) => id === ids[i])) this.forget();
    while (this.seen.length < ids.length) {
      await this.step(ids.slice(this.seen.length, this.seen.length + CHUNK));
    }
    return this.found;
  }

  async step(ids) {
    const before = this.seen.length, total = before + ids.length;
    const whole = (length, value) => {
      const data = BigInt64Array.from({ length }, (_, i) => BigInt(value(i)));
      return new ort.Tensor("int64", data, [1, length]);
    };
    const out = await this.session.run({
      input_ids: whole(ids.length, (i) => ids[i]),
      attention_mask: whole(total, () => 1),
      position_ids: whole(ids.length, (i) => before + i),
      ...this.past,
    });
    for (const name in this.past) this.past[name] = out[name.replace("past_key_values", "present")];
    this.seen = this.seen.concat(ids);
    const size = this.facts.vocab_size, heads = this.facts.num_heads, weights = out.attentions.data;
    this.found = {
      logits: out.logits.data.slice((ids.length - 1) * size, ids.length * size),
      attention: (layer, head) => weights.subarray((layer * heads + head) * total, (layer * heads + head + 1) * total),
    };
  }
}

// Probabilities [V] of the next token; the settings and their order are those of transformers' `generate`.
export function probabilities(logits, settings, seen, never = []) {
  const { temperature, top_k, top_p, min_p, repetition_penalty } = settings;
  const scores = Float32Array.from(logits);
  for (const id of new Set(seen)) scores[id] *= scores[id] < 0 ? repetition_penalty : 1 / repetition_penalty;
  for (const id of never) scores[id] = -Infinity;
  const sorted = scores.slice().sort().reverse();
  if (temperature === 0) {
    const best = scores.indexOf(sorted[0]);
    return scores.map((_, id) => Number(id === best));
  }
  const weight = (score) => Math.exp((score - sorted[0]) / temperature);
  let count = top_k > 0 ? Math.min(top_k, scores.length) : scores.length; // how many of the highest are left
  if (top_p < 1) {
    let missing = top_p * sorted.subarray(0, count).reduce((sum, score) => sum + weight(score), 0);
    for (let i = 0; i < count && missing > 0; i++) {
      missing -= weight(sorted[i]);
      if (missing <= 0) count = i + 1;
    }
  }
  const lowest = Math.max(sorted[count - 1], min_p > 0 ? sorted[0] + temperature * Math.log(min_p) : -Infinity);
  const result = scores.map((score) => (score >= lowest ? weight(score) : 0));
  const total = result.reduce((sum, value) => sum + value, 0);
  return result.map((value) => value / total);
}

// An id, drawn with these probabilities. random: → a number from 0 to 1.
export function draw(chances, random) {
  let left = random(), last = 0;
  for (let id = 0; id < chances.length; id++) {
    if (chances[id] === 0) continue;
    last = id;
    left -= chances[id];
    if (left < 0) break;
  }
  return last;
}

// Numbers from 0 to 1, the same for the same seed: Mulberry32 (T. Ettinger, public domain).
export function seeded(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

// Writes on from `ids`, and yields each new id; ends with one that ends a text, after `max_new_tokens`, and where the
// context is full.
export async function* write(model, ids, settings, random) {
  const all = [...ids], { context, ends, never } = model.facts;
  for (let count = 0; count < settings.max_new_tokens && all.length < context; count++) {
    const { logits } = await model.next(all);
    const id = draw(probabilities(logits, settings, all, never), random);
    all.push(id);
    yield id;
    if (ends.includes(id)) return;
  }
}
