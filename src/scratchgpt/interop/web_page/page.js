// The page: what is typed goes to the model, what it finds is drawn. The model itself is in model.js.

import { Model, probabilities, seeded, write } from "./model.js";

const SHOWN = 10; // tokens of the distribution
const TYPING = 400; // milliseconds without a key, after which a text is looked at
const ROUND = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const $ = (id) => document.getElementById(id);
const SETTINGS = ["temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_new_tokens"];

let model, stopped = false, busy = false, turn = Promise.resolve(), typing = 0;
let shown = []; // the ids whose last token the panels are about
let messages = []; // of the chat, without the system message

function say(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", isError);
}

function element(kind, className, text) {
  const made = document.createElement(kind);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// A token as it can be read: spaces and line ends have signs, and what is part of a character is �.
function visible(id) {
  return model.decode([id]).replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥") || "∅";
}

const settings = () => Object.fromEntries(SETTINGS.map((name) => [name, Number($(name).value)]));
const random = () => ($("seed").value === "" ? Math.random : seeded(Number($("seed").value)));
const inChat = () => !$("chat-part").hidden;
const pause = () => new Promise((resolve) => setTimeout(resolve)); // in which the browser draws, and hears Stop

// What the panels show

function drawNext() {
  const list = [];
  if (shown.length && model.found) {
    const plain = { temperature: 1, top_k: 0, top_p: 1, min_p: 0, repetition_penalty: 1 };
    const expected = probabilities(model.found.logits, plain, []);
    const after = probabilities(model.found.logits, settings(), shown, model.facts.never);
    const order = Array.from(expected.keys()).sort((a, b) => expected[b] - expected[a]).slice(0, SHOWN);
    for (const id of order) {
      const button = element("button", ""), bar = element("span", "bar"), mark = element("span", "mark");
      button.type = "button";
      button.dataset.id = id;
      bar.style.width = `${100 * expected[id]}%`;
      mark.style.left = `calc(${100 * after[id]}% - 3px * ${after[id]})`;
      mark.hidden = after[id] === 0;
      button.append(bar, mark, element("span", "token", visible(id)));
      button.append(element("span", "share", `${ROUND.format(expected[id])} → ${ROUND.format(after[id])}`));
      button.disabled = busy || inChat();
      button.addEventListener("click", () => guarded(async () => show([...shown, id])));
      const row = element("li", "");
      row.append(button);
      list.push(row);
    }
  }
  $("next").replaceChildren(...list);
}

function drawAttention() {
  const spans = [];
  if (shown.length && model.found) {
    const { num_heads } = model.facts, layer = Number($("layer").value), head = $("head").value;
    const heads = head === "mean" ? [...Array(num_heads).keys()] : [Number(head)];
    const weights = shown.map(() => 0);
    for (const each of heads) {
      model.found.attention(layer, each).forEach((weight, i) => (weights[i] += weight / heads.length));
    }
    const largest = Math.max(...weights);
    shown.forEach((id, i) => {
      const span = element("span", "", visible(id));
      span.style.background = `color-mix(in srgb, var(--mark) ${Math.round((70 * weights[i]) / largest)}%, transparent)`;
      span.title = ROUND.format(weights[i]);
      spans.push(span, document.createElement("wbr"));
    });
  }
  $("attention").replaceChildren(...spans);
}

// Looks at a text, given as ids, which becomes the one in the text field.
async function show(ids) {
  $("text").value = model.decode(ids);
  await look(ids);
}

async function look(ids) {
  if (ids.length > model.facts.context) {
    throw new Error(`The text has ${ids.length} tokens, and the model reads ${model.facts.context}: shorten it.`);
  }
  shown = ids;
  if (ids.length) await model.next(ids);
  drawNext();
  drawAttention();
  say(`${ids.length} of ${model.facts.context} tokens`);
}

// Writing

const BUTTONS = "#write, #one, #clear, #send, #new-chat, #modes button, #next button";

function setBusy(value) {
  busy = value;
  document.querySelectorAll(BUTTONS).forEach((each) => (each.disabled = busy));
  if (inChat()) document.querySelectorAll("#next button").forEach((each) => (each.disabled = true));
  $("stop").disabled = !busy;
}

// The model does one thing after the other; whatever goes wrong is said.
function queue(work) {
  turn = turn.then(work).catch((error) => say(error.message, true));
  return turn;
}

// What a button does: the others wait meanwhile, and Stop can be pressed.
async function guarded(work) {
  if (busy) return;
  clearTimeout(typing);
  stopped = false;
  setBusy(true);
  say("…");
  await queue(pause);
  await queue(work);
  setBusy(false);
}

// Writes on from `ids`; onText gets the new ids each time. Returns the new ids, without the one that ends a text.
async function goOn(ids, wanted, onText) {
  const written = [], begun = performance.now();
  let ending = "";
  for await (const id of write(model, ids, wanted, random())) {
    if (model.facts.ends.includes(id)) {
      ending = ", and it ended by itself";
      break;
    }
    written.push(id);
    onText(written);
    await pause();
    if (stopped) break;
  }
  const seconds = (performance.now() - begun) / 1000;
  const all = [...ids, ...written];
  await look(all);
  const full = all.length >= model.facts.context ? "; the context is full" : "";
  const rate = (written.length / seconds).toFixed(1);
  say(`${written.length} token${written.length === 1 ? "" : "s"}${ending}, ${rate} a second; ${all.length} of ${model.facts.context} tokens${full}`);
  return written;
}

async function continueText(count) {
  const ids = model.encode($("text").value);
  if (!ids.length) throw new Error("There is no text to continue: write one.");
  await look(ids);
  await goOn(ids, { ...settings(), max_new_tokens: count }, (written) => {
    $("text").value = model.decode([...ids, ...written]);
    $("text").scrollTop = $("text").scrollHeight;
  });
}

function addMessage(role, text) {
  const made = element("div", `message ${role}`, text);
  $("messages").append(made);
  return made;
}

// The newest messages that leave room for an answer, and their ids.
function fit(system, all, room) {
  for (let kept = all; ; kept = kept.slice(2)) {
    const ids = model.prompt([...system, ...kept]);
    if (ids.length <= room) return { kept, ids };
    if (kept.length === 1) {
      throw new Error(`The message takes ${ids.length} tokens, and there is room for ${room}: shorten it, or lower ` +
        "the tokens of an answer.");
    }
  }
}

async function ask() {
  const question = $("question").value, wanted = settings();
  if (!question.trim()) throw new Error("The message is empty: write one.");
  const system = $("system").value.trim() ? [{ role: "system", content: $("system").value }] : [];
  const asked = [...messages, { role: "user", content: question }];
  const { kept, ids } = fit(system, asked, model.facts.context - wanted.max_new_tokens);
  addMessage("user", question);
  const answer = addMessage("assistant", "…");
  $("question").value = "";
  const written = await goOn(ids, wanted, (some) => (answer.textContent = model.decode(some)));
  const text = model.decode(written).replace(/\ufffd+$/, "");
  answer.textContent = text || "(nothing)";
  messages = [...kept, { role: "assistant", content: text }];
}

// Beginning

function choose(chat) {
  $("chat-part").hidden = !chat;
  $("text-part").hidden = chat;
  $("chat-mode").setAttribute("aria-pressed", chat);
  $("text-mode").setAttribute("aria-pressed", !chat);
  drawNext();
}

function connect() {
  const { facts } = model;
  document.title = $("title").textContent = facts.title;
  $("about").textContent = `${(facts.parameters / 1e6).toFixed(1)} million parameters, in this browser: what you ` +
    "write stays here.";
  const half = Math.max(1, Math.floor(facts.context / 2));
  $("max_new_tokens").max = facts.context - 1;
  const values = { ...facts.sampling, max_new_tokens: Math.min(128, half) };
  for (const name of SETTINGS) {
    const input = $(name), output = input.parentElement.querySelector("output");
    input.value = values[name];
    const tell = () => (output.value = input.value);
    input.addEventListener("input", () => (tell(), busy || drawNext()));
    tell();
  }
  for (let i = 0; i < facts.num_layers; i++) $("layer").add(new Option(i + 1, i));
  $("layer").value = facts.num_layers - 1;
  $("head").add(new Option("mean of all", "mean"));
  for (let i = 0; i < facts.num_heads; i++) $("head").add(new Option(i + 1, i));
  for (const id of ["layer", "head"]) $(id).addEventListener("change", drawAttention);
  $("write").addEventListener("click", () => guarded(() => continueText(settings().max_new_tokens)));
  $("one").addEventListener("click", () => guarded(() => continueText(1)));
  $("clear").addEventListener("click", () => guarded(() => show([])));
  $("text").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => queue(() => look(model.encode($("text").value))), TYPING);
  });
  $("stop").addEventListener("click", () => (stopped = true));
  $("asking").addEventListener("submit", (event) => (event.preventDefault(), guarded(ask)));
  $("question").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    guarded(ask);
  });
  $("new-chat").addEventListener("click", () => guarded(async () => {
    messages = [];
    $("messages").replaceChildren();
    await look([]);
  }));
  $("chat-mode").addEventListener("click", () => choose(true));
  $("text-mode").addEventListener("click", () => choose(false));
  $("modes").hidden = !facts.chat;
  choose(facts.chat);
}

// The bytes of a file, with the share that has come of the large one.
async function read(name) {
  const response = await fetch(`model/${name}`);
  if (!response.ok) throw new Error(`model/${name} is not there (${response.status})`);
  const size = Number(response.headers.get("Content-Length"));
  if (name !== "model.onnx" || !size || response.headers.get("Content-Encoding")) {
    return new Uint8Array(await response.arrayBuffer());
  }
  const bytes = new Uint8Array(size), reader = response.body.getReader();
  let done = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    bytes.set(part.value, done);
    done += part.value.length;
    $("progress").value = done / size;
  }
  return bytes;
}

function switchTheme() {
  const dark = getComputedStyle(document.documentElement).colorScheme;
  const isDark = dark === "light dark" ? matchMedia("(prefers-color-scheme: dark)").matches : dark === "dark";
  document.documentElement.dataset.theme = isDark ? "light" : "dark";
}

$("theme").textContent = "◐";
$("theme").addEventListener("click", switchTheme);
try {
  if (location.protocol === "file:") {
    throw new Error("A browser does not let a page read files of the disk: in this folder, run `python -m " +
      "http.server`, and open http://localhost:8000");
  }
  model = await Model.load(read);
  connect();
  $("progress").hidden = true;
  $("main").hidden = false;
  say("The model is here.");
} catch (error) {
  $("progress").hidden = true;
  say(`The page cannot begin: ${error.message}`, true);
}
