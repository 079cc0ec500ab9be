// Run by Node after an export: node check.mjs <folder of the page> < job. Answers what Python then compares.

import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const folder = process.argv[2];
const { Model, write } = await import(pathToFileURL(`${folder}/model.js`));
const job = JSON.parse(readFileSync(0, "utf-8"));
const model = await Model.load(async (name) => new Uint8Array(await readFile(`${folder}/model/${name}`)));
const settings = { temperature: 0, top_k: 0, top_p: 1, min_p: 0, repetition_penalty: 1 };
const continuations = [];
for (const prompt of job.prompts) {
  const ids = [];
  for await (const id of write(model, prompt, { ...settings, max_new_tokens: job.count }, Math.random)) ids.push(id);
  continuations.push(ids);
}
const { logits } = await model.next(job.sentence);
const answer = {
  ids: model.encode(job.text),
  text: model.decode(model.encode(job.text)),
  chat: model.template ? model.prompt(job.messages) : null,
  logits: Array.from(logits),
  continuations,
};
process.stdout.write(JSON.stringify(answer));
