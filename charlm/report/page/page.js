/* Page of charlm: a model writes, and texts are shown as it reads them. No framework and no build step.
   Text becomes text nodes only, never HTML. A view is a function in VIEWS; data comes from `source`,
   which is a server, or what an export has stored. */
"use strict";

const $ = (id) => document.getElementById(id);
function make(tag, classes = "", text = null) {
  const element = document.createElement(tag);
  if (classes) element.className = classes;
  if (text !== null) element.textContent = text;
  return element;
}
/* A button for an action. */
function buttonOf(action, classes = "", text = null) {
  const button = make("button", classes, text);
  button.type = "button";
  button.addEventListener("click", action);
  return button;
}
/* A bar beside a number, of a length from 0 to 1. */
function meterOf(value) {
  const meter = make("meter");
  meter.value = value;
  meter.setAttribute("aria-hidden", "true");
  return meter;
}
function draw(tag, attributes = {}, text = null) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== null) element.textContent = text;
  return element;
}

/* ---- data --------------------------------------------------------------------------------------- */

/* Number of likeliest tokens that are asked for at each place. */
const ALTERNATIVES = 5;

/* A source answers with promises. An export has its data in the page. */
function storedSource(data) {
  return { live: false, view: data.view, models: async () => [data.model], score: async () => data.score, inside: async () => data.inside, find: async () => data.find, compare: async () => data.compare };
}
const servedSource = {
  live: true,
  view: "write",
  models: async () => (await ask("api/model")).models,
  score: (text, run) => ask("api/score", { text, top: ALTERNATIVES, run }),
  inside: (text, run, signals) => ask("api/inside", { text, signals, run }),
  find: (pattern, text, run) => ask("api/find", { pattern, text, top: 10, run }),
  compare: (text, run, other) => ask("api/compare", { text, run, other }),
};
const stored = $("data");
const source = stored ? storedSource(JSON.parse(stored.textContent)) : location.protocol.startsWith("http") ? servedSource : null;
const page = { models: [], model: null, text: null, score: null, inside: null, found: null, compared: null, view: "", turn: 0, unit: "", signal: "", shown: [] };

/* Request that asks for the key where the server needs one. Errors have a sentence for the reader. */
async function request(path, body, signal) {
  const headers = {}, key = sessionStorage.getItem("key");
  if (body) headers["Content-Type"] = "application/json";
  if (key) headers.Authorization = `Bearer ${key}`;
  const answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal }).catch((error) => {
    throw error.name === "AbortError" ? error : new Error("The server does not answer. Start it again with charlm serve, then try once more.");
  });
  if (answer.ok) return answer;
  if (answer.status === 401) {
    await askKey(key);
    return request(path, body, signal);
  }
  throw new Error((await answer.json().catch(() => ({}))).error?.message ?? `The server answered with status ${answer.status}.`);
}
const ask = async (path, body) => (await request(path, body)).json();
const cutOff = () => new Error("The server went away, so the text ends here.");
/* Events of a stream, as JSON. */
async function* events(path, body, signal) {
  const reader = (await request(path, body, signal)).body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ;) {
    const { value, done } = await reader.read().catch((error) => { throw error.name === "AbortError" ? error : cutOff(); });
    if (done) throw cutOff();
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      if (!part.startsWith("data: ")) continue;
      const content = part.slice(6);
      if (content === "[DONE]") return;
      const event = JSON.parse(content);
      if (event.error) throw new Error(event.error.message);
      yield event;
    }
  }
}
let keyAsked = null;
/* Ask for the key, once for all requests that wait for it. It stays in this tab. */
function askKey(refused) {
  const dialog = $("key-dialog");
  if (refused !== sessionStorage.getItem("key")) return Promise.resolve(); // another request has asked
  if (refused) $("key-note").textContent = "The server did not take that key. Try again.";
  return keyAsked ??= new Promise((resolve, reject) => {
    $("key-form").onsubmit = (event) => { event.preventDefault(); sessionStorage.setItem("key", $("key").value.trim()); dialog.close("key"); };
    dialog.onclose = () => {
      keyAsked = null;
      $("key").value = "";
      if (dialog.returnValue === "key") resolve();
      else reject(new Error("This server asks for a key, and none was given. Load the page again to give it."));
    };
    $("key-cancel").onclick = () => dialog.close("");
    dialog.returnValue = "";
    dialog.showModal();
  });
}
/* Show a message in an output, or an error in words. */
function say(output, message) {
  output.classList.toggle("wrong", message instanceof Error);
  output.textContent = message instanceof Error ? message.message : message;
}

function bytes(text) {
  if (Uint8Array.fromBase64) return new Int8Array(Uint8Array.fromBase64(text).buffer);
  return Int8Array.from(atob(text), (character) => character.charCodeAt(0)); // an older browser
}
/* Tokens as objects, from rows of TOKEN_COLUMNS in data.py. */
const tokensOf = ({ tokens }) => tokens.map(([text, bits, rank, top, oov, name]) => ({ text, bits, rank, top, oov, name }));
/* Parts under two models; no bits are those of an impossible part, not 0. */
function comparedOf(data) {
  const bits = (value) => value ?? Infinity;
  return { ...data, parts: data.parts.map((part) => ({ ...part, bits: bits(part.bits), other_bits: bits(part.other_bits) })) };
}
/* Levels of all units of a signal, from -127 to 127, decoded once. */
const levelsOf = (signal) => signal.values ??= bytes(signal.data);
/* Values of a unit after each token; a signal has 8 bits a value, and a scale for each unit. */
function valuesOf(unit, signal) {
  const data = page.inside?.signals[signal], row = page.inside?.units.indexOf(unit) ?? -1;
  if (!data || row < 0) return null;
  const count = page.score.tokens.length, scale = data.scales[row] / 127;
  return Array.from(levelsOf(data).subarray(row * count, (row + 1) * count), (value) => value * scale);
}
const signalOf = (id) => page.inside.names.find((signal) => signal.id === id);
const colourOf = (id) => `c${page.inside.names.indexOf(signalOf(id)) % COLOURS}`;
/* Signals that can be chosen: those of an export are all that it has stored. */
const choosable = () => page.inside.names.filter(({ id }) => source.live || page.inside.signals[id]);

/* ---- colours ------------------------------------------------------------------------------------ */

function surprisalClass(bits) {
  const bounds = page.model.bounds;
  let level = 0;
  while (level + 1 < bounds.length && bits >= bounds[level + 1]) level++;
  return level ? `s${level}` : "";
}
function signedClass(value) {
  const level = Math.round(5 * Math.max(-1, Math.min(1, value)));
  return level ? (level < 0 ? "n" : "p") + Math.abs(level) : "";
}
function fullValue(values) {
  const most = values.reduce((sum, value) => Math.max(sum, Math.abs(value)), 0);
  return [0.1, 0.25, 0.5, 1].find((each) => most <= each) ?? Math.ceil(2 * most) / 2;
}
function scale(pairs) {
  const bar = make("span", pairs[0][1] === "n5" ? "scale wide" : "scale");
  for (const [label, classes] of pairs) bar.append(make("span", classes, label));
  return bar;
}
function surprisalLegend() {
  return [
    make("span", "", "bits"), scale(page.model.bounds.map((bound, level) => [level ? bound.toFixed(1) : "0", level ? `s${level}` : ""])),
    make("span", "", `a blind guess among ${page.model.entries.toLocaleString("en")}: ${page.model.blind_guess.toFixed(1)} bits`),
  ];
}
const SIGNED = ["n5", "n4", "n3", "n2", "n1", "", "p1", "p2", "p3", "p4", "p5"].map((name) => [name ? "\u00a0" : "0", name]);

/* ---- the text ----------------------------------------------------------------------------------- */

/* Characters that are invisible or turn the direction of what follows, as escapes. Joiners of letters stay. */
const CONTROL = /(?![\u00ad\u200b-\u200d])[\p{Cc}\p{Cf}\u2028\u2029]/gu;
const readable = (text) => text.replace(CONTROL, (c) => c.codePointAt(0) < 256 ? `\\x${c.codePointAt(0).toString(16).padStart(2, "0")}` : `\\u${c.codePointAt(0).toString(16).padStart(4, "0")}`);
const isEnd = (token) => token.text === "" && token.name === "<eos>";
function nameOf(token) {
  return { "\n": "⏎", " ": "␣", "\t": "⇥", "\r": "␍", "<eos>": "⏎ end", "": "∅" }[token] ?? readable(token.replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/^ | $/g, "␣"));
}
const PLAIN = /^[ -~]+$/, token = make("span");
function span(item, index, level) {
  const element = token.cloneNode(), { text } = item;
  let classes = level ? `t ${level}` : "t";
  if (item.oov) classes += " unknown";
  if (!PLAIN.test(text)) {
    if (isEnd(item) || text.includes("\n")) classes += " end";
    else if (text === "") classes += " part";
    else if (text === "\t") classes += " tab";
    else if (readable(text) !== text) {
      element.className = `${classes} control`;
      element.dataset.shown = readable(text);
      element.dataset.i = index;
      return element;
    }
  }
  element.className = classes;
  element.setAttribute("data-i", index);
  element.textContent = text;
  return element;
}
/* Name of a token in a list: a blank before it is drawn by the style sheet, as is what says that EOS is an end. */
function codeOf(name) {
  if (name === "<eos>") return make("code", "eos", "⏎");
  const text = name.replace(/^ (?=\S)/, ""), shown = nameOf(text);
  return make("code", `${text === name ? "" : "blank"} ${shown.length > 4 ? "long" : ""}`.trim(), shown);
}

/* Regions of coloured text: their items, the span of each, and the item that is pointed at. */
const regions = Object.fromEntries(["written", "text"].map((id) => [id, { box: $(id), items: [], spans: [], at: -1, kept: false, marked: null }]));
const region = () => regions[page.view === "write" ? "written" : "text"];

/* Direction of a text by its first letter. The attribute dir=auto takes time for each token that comes,
   and the square of the number of lines in a field. */
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff\u{10800}-\u{10fff}\u{1e800}-\u{1eeff}]/u;
const directionOf = (text) => RIGHT_TO_LEFT.test(/\p{L}/u.exec(text)?.[0] ?? "") ? "rtl" : "ltr";

/* Show items, tokens or other parts of the text, in the colours of their levels. */
function paint(items, levelOf, legend) {
  const part = document.createDocumentFragment(), { text } = regions;
  if (items !== text.items) text.at = -1;
  text.items = items;
  text.spans = items.map((item, index) => span(item, index, levelOf(item, index)));
  part.append(...text.spans);
  text.box.dir = directionOf(part.textContent);
  text.box.replaceChildren(part);
  $("legend").replaceChildren(...legend);
  mark();
}

/* Point at an item: mark it, and show what is known about it. It stays if it is kept. */
function point(index, { scroll = false, keep = false } = {}) {
  const { items, spans } = region();
  if (index < -1 || index >= items.length) return;
  Object.assign(region(), { at: index, kept: keep && index >= 0 });
  mark();
  if (scroll) spans[index]?.scrollIntoView({ block: "nearest" });
}
function mark() {
  const here = region();
  here.marked?.classList.remove("here", "kept");
  here.marked = here.spans[here.at];
  here.marked?.classList.add("here");
  here.marked?.classList.toggle("kept", here.kept);
  card(here.items[here.at]);
  cursor();
}
const bitsText = (bits) => Number.isFinite(bits) ? `${bits.toFixed(2)} bits` : "impossible";
function card(token) {
  const box = $("token");
  box.classList.toggle("open", Boolean(token));
  if (!token) {
    box.replaceChildren(make("p", "soft", "Point at a token, or move with the arrow keys, to see what the model expected there."));
    return;
  }
  const which = make("div", "which"), facts = make("span"), shut = buttonOf(() => point(-1), "shut", "×");
  shut.setAttribute("aria-label", "Close");
  facts.append(make("strong", "", bitsText(token.bits)), ` · rank ${token.rank}${token.oov ? " · not in the vocabulary" : ""}`);
  which.append(make("b", "", nameOf(token.name)), facts, shut);
  box.replaceChildren(which);
  if (token.other_bits !== undefined) { // of two models, until another view has painted the text
    if (!page.compared) return;
    facts.replaceChildren(make("strong", "", `${signed(token.bits - token.other_bits)} bits`));
    box.append(make("p", "soft", `${page.model.id} ${bitsText(token.bits)}, ${page.compared.other} ${bitsText(token.other_bits)}`));
    return;
  }
  if (page.view === "inside") {
    const value = valuesOf(page.unit, page.signal)?.[region().at];
    if (value !== undefined) box.append(make("p", "soft", `${signalOf(page.signal).name} of unit ${page.unit} after it: ${value.toFixed(3)}`));
  }
  if (token.top.length) box.append(alternatives(token));
}
function alternatives(token) {
  const list = make("ul", "others"), at = region().at;
  token.top.forEach(([name, chance], k) => {
    const row = make("li", name === token.name ? "own" : ""), parts = [codeOf(name), meterOf(chance), make("span", "", chance < 0.0005 ? "<0.1 %" : `${(100 * chance).toFixed(1)} %`)];
    if (page.view === "write") {
      const button = buttonOf(() => branch(at, k));
      button.title = "Continue from here with this token";
      button.append(...parts);
      row.append(button);
    } else row.append(...parts);
    list.append(row);
  });
  return list;
}
/* Keys: the token beside, or the nearest one in the line above or below; a number is an alternative. */
function followKeys(event) {
  const { box, items, at } = region(), last = items.length - 1;
  const ahead = getComputedStyle(box).direction === "rtl" ? -1 : 1;
  const steps = { ArrowRight: at + ahead, ArrowLeft: at - ahead, Home: 0, End: last };
  let next = steps[event.key];
  if (event.ctrlKey || event.metaKey || event.altKey || last < 0) return;
  if (event.key === "ArrowDown" || event.key === "ArrowUp") next = lineBeside(Math.max(at, 0), event.key === "ArrowDown" ? 1 : -1);
  if (event.key === "Enter") {
    event.preventDefault(); // it would press the button that gets the focus
    return $("token").querySelector(".others button")?.focus();
  }
  if (event.key === "Escape") return writing.control ? writing.control.abort() : point(-1);
  if (page.view === "write" && /^[1-9]$/.test(event.key) && items[at]?.top[event.key - 1]) return branch(at, event.key - 1);
  if (next === undefined) return;
  event.preventDefault();
  point(Math.max(0, Math.min(last, next)), { scroll: true, keep: true });
}
function lineBeside(at, step) {
  const { spans } = region(), from = spans[at]?.getClientRects()[0];
  if (!from) return at;
  let best = at, near = Infinity, line = null;
  for (let k = at + step; k >= 0 && k < spans.length; k += step) {
    const box = spans[k].getClientRects()[0];
    if (!box || Math.abs(box.top - from.top) < 4) continue;
    line ??= box.top;
    if (Math.abs(box.top - line) > 4) break;
    if (Math.abs(box.left - from.left) < near) { near = Math.abs(box.left - from.left); best = k; }
  }
  return best;
}
/* Pointing at a token shows it; a click keeps it, so that its alternatives can be reached. */
function followPointer(box) {
  const indexOf = (event) => Number(event.target.closest(".t")?.dataset.i ?? -1);
  box.addEventListener("pointerover", (event) => { if (indexOf(event) >= 0 && !region().kept) point(indexOf(event)); });
  box.addEventListener("click", (event) => {
    if (!getSelection().isCollapsed) return;
    const index = indexOf(event);
    point(index, { keep: !(region().kept && region().at === index) });
  });
  box.addEventListener("keydown", followKeys);
}

/* ---- Write -------------------------------------------------------------------------------------- */

/* The text that is written: the prompt and the tokens after it. `control` can stop it while it comes. */
const writing = { prompt: "", promptIds: null, tokens: [], control: null };

function settings() {
  const seed = $("seed").value.trim(), stop = $("stop-text").value.replaceAll("\\n", "\n");
  return {
    model: page.model.id, max_tokens: Number($("length").value), temperature: Number($("temperature").value), top_p: Number($("top-p").value),
    ...(seed && { seed: Number(seed) }), ...(stop && { stop: [stop] }), ...(!$("ends").checked && { ignore_eos: true }),
    logprobs: ALTERNATIVES, stream: true, return_token_ids: true,
  };
}
/* What the model continues: ids where all are known, since a text could be cut into other tokens. */
function begun() {
  const { prompt, promptIds, tokens } = writing;
  if (promptIds && tokens.every((token) => token.id !== undefined)) return { prompt: [...promptIds, ...tokens.map(({ id }) => id)] };
  const text = prompt + tokens.map((token, k) => gapBefore(k) + token.text).join("");
  return text ? { prompt: text } : {};
}
async function writeNew() {
  const { prompt, promptIds, tokens } = writing;
  Object.assign(writing, { prompt: $("prompt").value, promptIds: null, tokens: [] });
  const stream = await write();
  if (!(stream?.end instanceof Error) || writing.tokens.length || !tokens.length) return;
  Object.assign(writing, { prompt, promptIds, tokens }); // nothing came: the text before it is still there
  startWriting(-1);
  endWriting(stream);
}
/* Continue from a token with one of its alternatives. */
function branch(at, which) {
  const old = writing.tokens[at], [name, chance] = old.top[which];
  const token = { ...old, ...wordingOf(name, old, writing.tokens[at - 1]), name, id: old.ids?.[name], bits: -Math.log2(chance), rank: rankOf(old.top, chance) };
  writing.tokens = [...writing.tokens.slice(0, at), token];
  return write(at);
}
/* Text of an alternative to a token, and the gap before it. */
function wordingOf(name, old, before) {
  if (name === old.name) return { gap: old.gap, text: old.text };
  if (name === "<eos>") return { gap: "", text: "\n" };
  if (/^<0x[0-9A-F]{2}/.test(name)) return { gap: "", text: "" }; // a part of a character
  if (page.model.unit === "word") { // blanks are between words, or tokens of their own
    const begins = (before?.text ?? writing.prompt).endsWith("\n") || !(before || writing.prompt);
    return { gap: begins || !writing.tokens.some(({ gap }) => gap) ? "" : " ", text: name };
  }
  const text = name.replace(/^ +(?=\S)/, "");
  return { gap: name.slice(0, name.length - text.length), text };
}
/* Rank of a chance among those of the alternatives; of a token beside them only a bound is known. */
function rankOf(top, chance) {
  const rank = top.filter(([, other]) => other > chance).length + 1;
  return rank > ALTERNATIVES ? `> ${ALTERNATIVES}` : rank;
}

/* Write on after the tokens that are there, and return how that went. `at` is the token to point at. */
async function write(at = -1) {
  writing.control?.abort();
  const control = writing.control = new AbortController(), stream = { begin: performance.now(), took: 0, first: writing.tokens.length, text: [], offsets: [], end: "" };
  startWriting(at);
  const painted = keepPainting(stream, control);
  try {
    for await (const event of events("v1/completions", { ...begun(), ...settings() }, control.signal)) {
      if (writing.control !== control) return null;
      if (event.choices[0]) take(event.choices[0], stream);
    }
  } catch (error) {
    stream.end = error.name === "AbortError" ? "stopped" : error;
  }
  stream.took = performance.now() - stream.begin;
  await painted;
  if (writing.control !== control) return null;
  if (control.signal.aborted) stream.end = "stopped";
  endWriting(stream);
  return stream;
}
/* Paint what has come at a steady pace until all is there or the text is stopped: a token in a
   millisecond, or more, so that a long text takes about 4 seconds. There is time between frames to press Stop. */
const LONGEST = 4000, FRAME_TOKENS = 200;
async function keepPainting(stream, control) {
  const { spans } = regions.written, { tokens } = writing, pace = Math.max(1, settings().max_tokens / LONGEST);
  for (let before = performance.now(); !control.signal.aborted && !(stream.took && spans.length === tokens.length);) {
    await new Promise((done) => { requestAnimationFrame(done); setTimeout(done, 500); }); // without a view there are no frames
    const now = performance.now();
    if (!control.signal.aborted) paintWritten(stream, document.hidden ? Infinity : Math.min(FRAME_TOKENS, Math.ceil(pace * (now - before))));
    before = now;
  }
  if (writing.control === control) tokens.splice(spans.length); // what was not seen is not kept
}
function startWriting(at) {
  const { written } = regions, kept = writing.tokens;
  written.spans = [];
  written.items = kept;
  Object.assign(written, { at, kept: at >= 0 });
  written.box.replaceChildren(make("span", "given", writing.prompt), make("span", "caret"));
  written.box.lastChild.setAttribute("aria-hidden", "true");
  written.box.dataset.empty = "";
  addSpans(Infinity);
  mark();
  $("write-status").setAttribute("aria-busy", "true"); // it changes with each frame: readers wait for the end
  $("stop").disabled = false;
  $("more").disabled = $("copy").disabled = true;
}
function endWriting(stream) {
  const { box } = regions.written;
  writing.control = null;
  box.querySelector(".caret").remove();
  $("stop").disabled = true;
  $("more").disabled = $("copy").disabled = !writing.tokens.length;
  if (document.activeElement === document.body) $("more").focus(); // a disabled button has lost it
  $("write-status").removeAttribute("aria-busy");
  say($("write-status"), stream.end instanceof Error ? stream.end : `${rate(stream)}${stream.end && ` · ${stream.end}`}`);
}
/* Take the tokens of an event. The text of a token goes up to the offset of the next one. */
function take(choice, stream) {
  const { tokens } = writing, block = choice.logprobs, ids = choice.token_ids ?? [];
  if (choice.prompt_token_ids && stream.first === 0) writing.promptIds ??= choice.prompt_token_ids;
  stream.text.push(...choice.text); // by characters, not by UTF-16
  (block?.tokens ?? []).forEach((name, k) => {
    const top = Object.entries(block.top_logprobs[k]).map(([other, value]) => [other, Math.exp(value)]).sort((a, b) => b[1] - a[1]);
    stream.offsets.push(block.text_offset[k]);
    tokens.push({ name, id: ids[k], ids: block.top_token_ids?.[k], gap: "", text: "", bits: -block.token_logprobs[k] / Math.LN2, rank: rankOf(top, Math.exp(block.token_logprobs[k])), top, oov: false });
  });
  for (let k = Math.max(0, stream.settled ?? 0); k < stream.offsets.length; k++) {
    const text = stream.text.slice(stream.offsets[k], stream.offsets[k + 1]).join(""), gap = /^ +(?=\S)/.exec(text)?.[0] ?? "";
    Object.assign(tokens[stream.first + k], { gap, text: text.slice(gap.length) });
  }
  stream.settled = stream.offsets.length - 1; // more text may come of the last one
  if (choice.finish_reason === "stop") stream.end = choice.stop_reason ? `stopped before ${nameOf(choice.stop_reason)}` : "end of the document";
}
/* Append tokens that have come: nothing is painted again, so a selection stays. */
function paintWritten(stream, most) {
  const { box } = regions.written, atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  addSpans(most);
  box.dir = directionOf(box.textContent);
  if (atEnd) box.scrollTop = box.scrollHeight;
  say($("write-status"), rate(stream));
}
/* Text between a token and the one before it: blanks, and the line end after a document that ended there. */
const gapBefore = (k) => (k && isEnd(writing.tokens[k - 1]) ? "\n" : "") + writing.tokens[k].gap;
function addSpans(most) {
  const { box, spans, items } = regions.written, part = document.createDocumentFragment(), last = items[spans.length - 1];
  if (last && last.shown !== last.text) {
    spans.at(-1).replaceWith(spans[spans.length - 1] = span(last, spans.length - 1, surprisalClass(last.bits)));
    last.shown = last.text;
  }
  for (let k = spans.length, end = Math.min(items.length, k + most); k < end; k++) {
    part.append(gapBefore(k));
    part.append(spans[k] = span(items[k], k, surprisalClass(items[k].bits)));
    items[k].shown = items[k].text;
  }
  box.insertBefore(part, box.querySelector(".caret"));
}
function rate(stream) {
  const count = regions.written.spans.length, bits = writing.tokens.slice(0, count).reduce((sum, token) => sum + token.bits, 0);
  const speed = Math.round(1000 * (writing.tokens.length - stream.first) / (stream.took || performance.now() - stream.begin));
  return `${count.toLocaleString("en")} tokens · ${speed.toLocaleString("en")} tokens/s · ${(bits / Math.max(1, count)).toFixed(2)} bits/token`;
}
async function copyWritten() {
  const text = regions.written.box.textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch { // a page of another host may not: then it is selected, to be copied by the keyboard
    getSelection().selectAllChildren(regions.written.box);
    document.execCommand("copy");
  }
  say($("write-status"), "Copied");
}

/* ---- reading a text ----------------------------------------------------------------------------- */

/* Read the text for a view, unless it has been read, and show it. A later call outruns an earlier one. */
async function showText(view = page.view) {
  const turn = ++page.turn, text = $("input").value, run = page.model.id, status = $("read-status");
  const late = setTimeout(() => say(status, "Reading…"), 150);
  if (text) regions.text.box.dataset.empty = ""; // the box stays empty until the text has been read
  try {
    if (source.live && !text) return say(status, "Enter a text, then press Read.");
    if (source.live && page.text !== text) {
      const score = await source.score(text, run);
      if (turn !== page.turn) return;
      Object.assign(page, { text, score: { ...score, tokens: tokensOf(score) }, inside: null, compared: null });
      totals();
      lines();
    }
    await need(view, turn);
    if (turn !== page.turn) return;
    say(status, source.live ? `${page.score.tokens.length.toLocaleString("en")} tokens` : "");
  } catch (error) {
    if (turn !== page.turn) return;
    say(status, error);
    if (page.score && page.text === text) showScore();
    return;
  } finally {
    clearTimeout(late);
  }
  document.body.dataset.read = "true";
  VIEWS[view]();
}
/* Load what a view needs beside the score. */
async function need(view, turn) {
  const { text, model } = page, other = $("other").value;
  if (view === "inside" && source.live && !page.inside && model.inside) {
    const inside = await source.inside(text, model.id, page.signal ? [...new Set([page.signal, ...page.shown])] : undefined);
    if (turn === page.turn) begunInside(inside);
  }
  if (view === "compare" && source.live && other && page.compared?.other !== other) {
    const compared = await source.compare(text, model.id, other);
    if (turn === page.turn) { page.compared = comparedOf(compared); versus(); }
  }
}

/* ---- Score -------------------------------------------------------------------------------------- */

function showScore() {
  paint(page.score.tokens, (token) => surprisalClass(token.bits ?? Infinity), surprisalLegend());
}
function figures(pairs) {
  const list = make("dl", "figures");
  for (const [name, value] of pairs) {
    const item = make("div");
    item.append(make("dt", "", name), make("dd", "", value));
    list.append(item);
  }
  return list;
}
function totals() {
  const sums = page.score.totals, shown = (value, digits) => value === null ? "–" : value.toFixed(digits);
  $("totals").replaceChildren(make("h2", "", "This text"), figures([
    ["ln P", shown(sums.log_probability, 2)], ["bits per character", shown(sums.bits_per_char, 3)],
    ["perplexity", shown(sums.perplexity, 2)], ["likeliest token", `${Math.round(100 * sums.first)} %`],
    ["tokens", sums.tokens.toLocaleString("en")], ["unknown", sums.oov.toLocaleString("en")],
  ]));
}
/* Lines of a text from its items, with the sums of their bits by each of some names, and characters. */
function linesOf(items, ...names) {
  const all = [], empty = () => ({ text: "", ...Object.fromEntries(names.map((name) => [name, 0])) });
  let line = empty();
  for (const item of items) {
    line.text += item.text;
    for (const name of names) line[name] += item[name] ?? Infinity;
    if (item.text.includes("\n")) { all.push(line); line = empty(); }
  }
  if (line.text) all.push(line);
  else if (all.length) for (const name of names) all.at(-1)[name] += line[name]; // the end of the text
  for (const each of all) each.characters = Math.max(1, [...each.text].length);
  return all.slice(0, 500);
}
function lineText(line) {
  const text = make("td", "cut", readable(line.text.replace(/\n$/, "")));
  text.dir = "auto";
  return text;
}
function lines() {
  const all = linesOf(page.score.tokens, "bits");
  for (const each of all) each.mean = each.bits / each.characters;
  const means = all.map((each) => each.mean), worst = Math.max(...means, 1e-9);
  const best = Math.min(...all.filter((each) => each.text.trim()).map((each) => each.mean));
  $("lines").tBodies[0].replaceChildren(...all.map((each, number) => {
    const row = make("tr"), size = make("td");
    size.append(meterOf(each.mean / worst));
    row.append(
      make("td", "number soft", String(number + 1)), make("td", "number", (-each.bits * Math.LN2).toFixed(2)),
      make("td", all.length > 1 && each.mean === best ? "number best" : "number", each.mean.toFixed(3)), size, lineText(each),
    );
    return row;
  }));
}

/* ---- Inside ------------------------------------------------------------------------------------- */

function begunInside(inside) {
  page.inside = inside;
  const known = inside.units.includes(page.unit) && inside.signals[page.signal];
  if (!known) Object.assign(page, { unit: inside.unit, signal: inside.signal });
  page.shown = page.shown.filter((id) => inside.signals[id]);
  if (!page.shown.length) page.shown = ["h", page.signal].filter((id, k, all) => inside.signals[id] && all.indexOf(id) === k);
  $("signal").replaceChildren(...choosable().map(({ id, name }) => new Option(name, id)));
  $("unit").value = page.unit;
  $("signal").value = page.signal;
}
function showInside() {
  if (!page.inside) { // an n-gram model
    showScore();
    return;
  }
  const values = valuesOf(page.unit, page.signal) ?? [], signal = signalOf(page.signal), most = signal.gate ? 1 : fullValue(values);
  paint(page.score.tokens, (token, index) => signedClass(signal.gate ? 2 * values[index] - 1 : values[index] / most), [
    make("span", "", signal.gate ? "0 shut" : `${-most}`), scale(SIGNED.map(([label, name]) => [signal.gate && !name ? "½" : label, name])), make("span", "", signal.gate ? "1 open" : `${most}`),
    make("span", "", `${signal.name} of unit ${page.unit} after each token`),
  ]);
  for (const row of $("found").tBodies[0].rows) row.setAttribute("aria-selected", row.dataset.unit === page.unit && row.dataset.signal === page.signal);
  chart();
  map();
  if (source.live && !page.found) find({ quiet: true });
}
/* Load a signal that is not there yet. Return whether it is there. */
async function needSignal(signal) {
  const inside = page.inside;
  try {
    if (!inside.signals[signal]) Object.assign(inside.signals, (await source.inside(page.text, page.model.id, [signal])).signals);
  } catch (error) {
    if (inside === page.inside) say($("unit-status"), error);
    return false;
  }
  return inside === page.inside;
}
async function choose(unit, signal = page.signal) {
  if (!page.inside) return;
  const { units } = page.inside, unknown = !units.includes(unit);
  say($("unit-status"), unknown ? new Error(`No unit ${unit}; expected one of ${units[0]} to ${units.at(-1)}`) : "");
  if (unknown) return;
  const isThere = await needSignal(signal);
  if (isThere) {
    Object.assign(page, { unit, signal });
    if (!page.shown.includes(signal)) page.shown = [signal, ...page.shown].slice(0, 2);
  }
  $("unit").value = page.unit;
  $("signal").value = page.signal;
  if (isThere && page.view === "inside") showInside();
}
function step(by) {
  const units = page.inside?.units ?? [];
  choose(units[(units.indexOf(page.unit) + by + units.length) % units.length]);
}

const CHART = { left: 34, right: 8, top: 8, bottom: 8 };
function chart() {
  const box = $("chart"), width = box.clientWidth || 800, height = box.clientHeight || 160, count = page.score.tokens.length;
  $("chart-title").textContent = `Unit ${page.unit} over the text`;
  const curves = page.shown.map((id) => [id, valuesOf(page.unit, id)]), all = curves.flatMap(([, values]) => values);
  const high = all.reduce((a, b) => Math.max(a, b), 0.1), low = all.reduce((a, b) => Math.min(a, b), page.shown.every((id) => signalOf(id).gate) ? 0 : -0.1);
  const x = (k) => CHART.left + (width - CHART.left - CHART.right) * (k + 0.5) / Math.max(1, count);
  const y = (value) => CHART.top + (height - CHART.top - CHART.bottom) * (high - value) / (high - low);
  box.setAttribute("viewBox", `0 0 ${width} ${height}`);
  box.replaceChildren();
  for (const value of new Set([low, 0, high])) {
    box.append(draw("line", { x1: CHART.left, x2: width - CHART.right, y1: y(value), y2: y(value), class: value ? "" : "zero" }));
    if (!value || Math.abs(y(value) - y(0)) > 12) box.append(draw("text", { x: CHART.left - 6, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(1)));
  }
  for (const [id, values] of curves) {
    const path = values.map((value, k) => `${k ? "L" : "M"}${x(k).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    box.append(draw("path", { d: path, class: colourOf(id) }));
  }
  box.append(draw("line", { class: "cursor", id: "cursor", y1: 0, y2: height, x1: -9, x2: -9 }));
  $("signals").replaceChildren(...choosable().map(({ id, name }, k) => {
    const button = buttonOf(async () => {
      if (!await needSignal(id)) return;
      page.shown = page.shown.includes(id) ? page.shown.filter((each) => each !== id) : [...page.shown, id];
      chart();
      $("signals").children[k].focus();
    }, colourOf(id), name);
    button.setAttribute("aria-pressed", page.shown.includes(id));
    return button;
  }));
  cursor();
}
function cursor() {
  const line = $("cursor"), box = $("chart");
  if (!line || page.view !== "inside" || !page.inside) return;
  const x = region().at < 0 ? -9 : CHART.left + (box.clientWidth - CHART.left - CHART.right) * (region().at + 0.5) / page.score.tokens.length;
  line.setAttribute("x1", x);
  line.setAttribute("x2", x);
}
function tokenUnder(event, left, right) {
  const box = event.currentTarget.getBoundingClientRect();
  return Math.floor((event.clientX - box.left - left) / (box.width - left - right) * page.score.tokens.length);
}

/* Colours of the levels, as the style sheet has them for the present theme. */
function levelColours() {
  const probe = make("span");
  document.body.append(probe);
  const colours = SIGNED.map(([, name]) => {
    probe.className = name || "card";
    const [red, green, blue] = getComputedStyle(probe).backgroundColor.match(/[\d.]+/g).map(Number);
    return (255 << 24) | (blue << 16) | (green << 8) | red; // as a pixel of an image
  });
  probe.remove();
  return colours;
}
function map() {
  const canvas = $("map"), count = page.score.tokens.length, units = page.inside.units, signal = signalOf(page.signal), data = page.inside.signals[page.signal], levels = levelsOf(data);
  $("map-note").textContent = `${units.length} units × ${count} tokens, ${signal.name}${signal.gate ? "" : ", each row by its own scale"}; layer 1 on top`;
  if (!count || !units.length) return;
  const columns = Math.min(count, 4000), colours = levelColours();
  canvas.width = columns;
  canvas.height = units.length;
  const drawing = canvas.getContext("2d"), image = drawing.createImageData(columns, units.length), pixels = new Uint32Array(image.data.buffer);
  for (let unit = 0; unit < units.length; unit++) {
    const full = signal.gate ? data.scales[unit] : fullScale(data, unit);
    for (let column = 0; column < columns; column++) {
      const value = levels[unit * count + Math.floor(column * count / columns)] / 127;
      const level = Math.round(5 * Math.max(-1, Math.min(1, signal.gate ? 2 * value * full - 1 : value * full)));
      pixels[unit * columns + column] = colours[level + 5];
    }
  }
  drawing.putImageData(image, 0, 0);
  drawing.fillStyle = getComputedStyle(document.body).color;
  for (const x of [0, columns - columns / 120]) drawing.fillRect(x, units.indexOf(page.unit), columns / 120, 1);
}
/* A unit that never leaves a small range around zero stays pale. */
const fullScale = (data, unit) => Math.min(1, data.scales[unit] / 0.25);

/* Patterns to try, and the sentence under the results. */
const PATTERNS = [["quotes", '"[^"]*"'], ["capitals", "\\b[A-Z]\\w*"], ["words", "\\w+"], ["line starts", "^.{1,5}"], ["brackets", "\\([^)]*\\)"], ["place in the line", "column"]];
/* Find units for the pattern; a quiet search is one that nobody asked for, so it may fail in silence. */
async function find({ quiet = false } = {}) {
  const status = $("find-status"), model = page.model, pattern = $("pattern").value, mine = page.search = {};
  const late = setTimeout(() => say(status, "Searching…"), 150);
  let answer = { units: [], pattern }, message = "";
  if (page.found?.pattern !== pattern) $("found").hidden = true; // it has other units
  page.found = answer; // so that another look at the view does not search again
  try {
    answer = await source.find(pattern, page.text ?? $("input").value, model.id);
    message = `${answer.characters.toLocaleString("en")} characters of ${answer.source === "this text" ? "" : "the "}${answer.source}${answer.fraction === null ? "" : `, ${(100 * answer.fraction).toFixed(1)}\u00a0% match`}`;
  } catch (error) {
    message = quiet ? "" : error;
  }
  clearTimeout(late);
  if (mine !== page.search || model !== page.model) return; // another search has begun
  page.found = answer;
  say(status, message);
  found();
  const [best] = answer.units;
  if (best && page.inside) await choose(best.unit, best.signal);
}
function found() {
  const answer = page.found;
  $("found-card").hidden = !answer && !source.live;
  $("found").hidden = !answer?.units.length;
  $("found-note").hidden = source.live || !answer;
  if (!answer) return;
  if (!source.live) {
    $("found-title").textContent = answer.pattern === "column" ? "Units that know the place in the line" : "Units that know where this matches";
    $("found-note").replaceChildren(make("code", "", answer.pattern), ": r is on the half of the text by which units are ranked, held out on the other.");
  }
  $("found").tBodies[0].replaceChildren(...answer.units.map((each) => {
    const row = make("tr"), name = make("td"), size = make("td");
    row.dataset.unit = each.unit;
    row.dataset.signal = each.signal;
    name.append(buttonOf(() => choose(each.unit, each.signal), "", `${each.unit} ${each.signal}`));
    size.append(meterOf(Math.abs(each.r_held_out ?? 0)));
    row.append(name, make("td", "number", each.r.toFixed(2)), make("td", "number", each.r_held_out === null ? "–" : each.r_held_out.toFixed(2)), size);
    return row;
  }));
}

/* ---- Compare ------------------------------------------------------------------------------------ */

const signed = (value) => Number.isNaN(value) ? "–" : `${value > 0 ? "+" : ""}${value.toFixed(2)}`;
function showCompare() {
  if (!page.compared) {
    showScore();
    versus();
    return;
  }
  const { other, full } = page.compared;
  paint(page.compared.parts, (part) => signedClass((part.bits - part.other_bits) / full), [
    make("span", "", `${page.model.id} ${full} bits better`), scale(SIGNED), make("span", "", `${other} ${full} bits better`),
  ]);
}
function versus() {
  $("pairs-card").hidden = !page.compared;
  if (!page.compared) {
    $("versus").replaceChildren(make("p", "soft", "Only one model is served here. Serve another one beside it with charlm serve --also RUN."));
    return;
  }
  const { other, parts } = page.compared, id = page.model.id, sum = (name) => parts.reduce((total, part) => total + part[name], 0);
  const characters = Math.max(1, [...parts.map((part) => part.text).join("")].length), own = sum("bits"), theirs = sum("other_bits");
  const won = parts.filter((part) => part.bits < part.other_bits).length / Math.max(1, parts.length);
  $("pairs-own").textContent = id;
  $("pairs-other").textContent = other;
  $("pairs").tBodies[0].replaceChildren(...linesOf(parts, "bits", "other_bits").map((line, number) => {
    const row = make("tr"), means = [line.bits / line.characters, line.other_bits / line.characters], first = means[0] < means[1];
    row.append(
      make("td", "number soft", String(number + 1)), make("td", first ? "number best" : "number", means[0].toFixed(3)),
      make("td", first ? "number" : "number best", means[1].toFixed(3)), make("td", "number", signed(means[0] - means[1])), lineText(line),
    );
    return row;
  }));
  $("versus").replaceChildren(make("h2", "", `${id} beside ${other}`), figures([
    [`${id}, bits/char`, (own / characters).toFixed(3)], [`${other}, bits/char`, (theirs / characters).toFixed(3)],
    ["difference, bits", signed(own - theirs)], [`parts that ${id} expects more`, `${Math.round(100 * won)} %`],
  ]));
}

/* ---- Runs --------------------------------------------------------------------------------------- */

/* Runs of the folder; `chosen` has the ids of those in the picture with the numbers of their colours. */
const training = { runs: [], chosen: null, x: "tokens", y: "bits/byte", log: false, at: null, first: 1, far: 1, lines: [], plot: null };
const COLOURS = 6, PLOT = { left: 40, top: 10, bottom: 26, gap: 8, line: 14 };
const TIMES = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];

/* A part of a log as points [x, y]; y is null where a value is not finite. */
const pointsOf = (curve) => curve?.[training.x].map((x, k) => [x, curve[training.y][k]]) ?? [];
const known = (points) => points.filter(([, y]) => y !== null);
const isCurve = (run) => Boolean(run.training?.steps.length || run.validation?.steps.length);
const isDrawn = (run) => isCurve(run) || run.best[training.y] !== null;

async function showRuns() {
  const begin = performance.now();
  try {
    training.runs = (await ask("api/runs")).runs.sort((a, b) => isCurve(b) - isCurve(a) || isDrawn(b) - isDrawn(a));
  } catch (error) {
    say($("runs-status"), error);
    return;
  }
  say($("runs-status"), "");
  if (!training.chosen) chooseRuns(training.runs.filter(isDrawn).slice(0, COLOURS));
  drawRuns();
  clearTimeout(training.again);
  const wait = Math.max(5000, 20 * (performance.now() - begin)); // many logs take a while to read
  if (training.runs.some((run) => run.status === "training now")) training.again = setTimeout(() => { if (page.view === "runs") showRuns(); }, wait);
}
function drawRuns() {
  runRows();
  curves();
}
function chooseRuns(runs) {
  training.chosen = new Map(runs.map(({ id }, k) => [id, k % COLOURS]));
}
/* Add a run to the picture in the colour that is used least, or take it away. */
function toggleRun(id, isChosen) {
  const used = [...training.chosen.values()], uses = Array.from({ length: COLOURS }, (_, k) => used.filter((colour) => colour === k).length);
  if (isChosen) training.chosen.set(id, uses.indexOf(Math.min(...uses)));
  else training.chosen.delete(id);
}
function runRows() {
  const focused = document.activeElement?.value;
  $("runs").tBodies[0].replaceChildren(...training.runs.map((run) => {
    const row = make("tr"), cell = make("td"), label = make("label"), box = make("input"), best = run.best[training.y], colour = training.chosen.get(run.id);
    box.type = "checkbox";
    box.value = run.id;
    box.checked = colour !== undefined;
    box.disabled = !isDrawn(run);
    box.addEventListener("change", () => { toggleRun(run.id, box.checked); drawRuns(); });
    label.append(box, make("code", colour === undefined ? "" : `c${colour}`, readable(run.id)));
    const facts = make("small");
    facts.append(make("span", "", run.model), " ", make("span", "", [run.unit, readable(run.text)].filter(Boolean).join(" · ")));
    cell.append(label, facts);
    if (run.status !== "finished") cell.append(make("small", run.status === "training now" ? "live" : "wrong", run.status));
    if (run.note) cell.append(make("small", "", run.note));
    row.append(cell, make("td", "number", best === null ? "–" : best.toFixed(3)), spark(run, colour));
    for (const name of ["pointerenter", "focusin"]) row.addEventListener(name, () => emphasise(run.id));
    for (const name of ["pointerleave", "focusout"]) row.addEventListener(name, () => emphasise(null));
    return row;
  }));
  [...document.querySelectorAll("#runs input")].find((box) => box.value === focused)?.focus();
}
/* A small picture of the training of a run, by its own scales. */
function spark(run, colour) {
  const cell = make("td", "spark"), points = known(pointsOf(run.training)).slice(2);
  if (points.length < 2) return cell;
  const ys = points.map(([, y]) => y), low = Math.min(...ys), high = Math.max(...ys), first = points[0][0], last = points.at(-1)[0];
  const places = points.map(([x, y]) => `${(80 * (x - first) / (last - first || 1)).toFixed(1)},${(24 - 22 * (y - low) / (high - low || 1)).toFixed(1)}`);
  const picture = draw("svg", { viewBox: "0 0 80 26", "aria-hidden": "true" });
  picture.append(draw("polyline", { points: places.join(" "), class: colour === undefined ? "" : `c${colour}` }));
  cell.append(picture);
  return cell;
}
function emphasise(id) {
  $("curves").classList.toggle("some", training.chosen.has(id));
  for (const line of $("curves").querySelectorAll("[data-run]")) line.classList.toggle("on", line.dataset.run === id);
}

/* Round values from low to high, at most `most` of them; `distances` are those that are allowed. */
function ticks(low, high, most, distances) {
  const raw = (high - low) / most, power = 10 ** Math.floor(Math.log10(raw)), round = [1, 2, 2.5, 5, 10].map((digit) => digit * power);
  const distance = (distances ?? round).find((each) => each >= raw * (1 - 1e-9)) ?? 86400 * Math.ceil(raw / 86400);
  return Array.from({ length: Math.floor(high / distance + 1e-9) - Math.ceil(low / distance - 1e-9) + 1 }, (_, k) => (Math.ceil(low / distance - 1e-9) + k) * distance);
}
const short = (value, digits) => Number(value.toFixed(digits)).toLocaleString("en");
function placeName(value, far = value) { // of a number of tokens or steps, or of seconds
  if (training.x === "seconds") {
    const [size, letter] = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]].find(([size]) => far >= 2 * size) ?? [1, "s"];
    return value ? `${short(value / size, 2)} ${letter}` : "0";
  }
  return value >= 1e6 ? `${short(value / 1e6, 2)} M` : value >= 1e4 ? `${short(value / 1e3, 1)} k` : value.toLocaleString("en");
}

/* The place across of a value, from 0 to 1, and the value at a place. */
const share = (x) => training.log ? Math.max(0, Math.log(x / training.first) / Math.log(training.far / training.first)) : x / training.far;
const valueAt = (place) => training.log ? training.first * (training.far / training.first) ** place : training.far * place;
/* Ticks across; those of a logarithmic axis are powers of ten or the like, at most `most` of them. */
function ticksAcross(most) {
  const { first, far, log, x } = training;
  if (!log) return ticks(0, far, most, x === "seconds" && far > 10 ? TIMES : undefined);
  const powers = Array.from({ length: 20 }, (_, k) => 10 ** (k - 3)), values = x === "seconds" ? [0.01, 0.1, 1, 10, 60, 600, 3600, 36000, 864000] : powers;
  const within = values.filter((value) => value >= first * (1 - 1e-9) && value <= far * (1 + 1e-9));
  return within.filter((_, k) => k % Math.ceil(within.length / most) === 0);
}

/* The lines of the chosen runs. The steep beginning of a curve does not set the scale; it enters from above. */
function linesOfRuns() {
  return training.runs.filter((run) => training.chosen.has(run.id) && isDrawn(run)).map((run) => {
    const line = pointsOf(run.training), dots = known(pointsOf(run.validation)), level = isCurve(run) ? null : run.best[training.y];
    const dot = dots.at(-1), last = known(line).at(-1), end = level !== null ? null : dot?.[0] >= 0.97 * (last?.[0] ?? 0) ? dot : last ?? null, skipped = Math.min(5, line.length >> 3);
    const ys = level === null ? [...known(line.slice(skipped)), ...dots].map(([, y]) => y) : [level];
    return { run, line, dots, level, end, ys, xs: [...line, ...dots].map(([x]) => x), colour: `c${training.chosen.get(run.id)}` };
  });
}
function curves() {
  const box = $("curves"), width = box.clientWidth || 800, height = box.clientHeight || 380, lines = linesOfRuns(), ys = lines.flatMap((line) => line.ys);
  $("curves-title").textContent = `Bits per ${training.y.slice(5)}`;
  box.setAttribute("viewBox", `0 0 ${width} ${height}`);
  box.replaceChildren();
  curvesNote(lines);
  const xs = lines.flatMap((line) => line.xs).filter((x) => x > 0), far = Math.max(...xs, 1e-9), first = Math.min(...xs, far / 2);
  Object.assign(training, { lines, far, first });
  box.setAttribute("aria-label", curvesLabel(lines));
  if (!ys.length) {
    box.append(draw("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "Choose a run."));
    return cross(null);
  }
  const least = Math.min(...ys), most = Math.max(...ys), margin = 0.04 * (most - least) || 0.1, low = least - margin, high = most + margin;
  const names = lines.map((line) => endOf(line, box));
  const right = Math.min(0.42 * width, Math.max(12, ...names.map(({ place, size }) => place ? width - PLOT.left - (width - PLOT.left - size - PLOT.gap - 4) / place : 0)));
  const plot = { width: width - PLOT.left - right, height: height - PLOT.top - PLOT.bottom };
  const x = (value) => plot.width * share(value), y = (value) => plot.height * (high - value) / (high - low);
  for (const value of ticks(low, high, plot.height / 55)) {
    box.append(draw("line", { x1: PLOT.left, x2: PLOT.left + plot.width, y1: PLOT.top + y(value), y2: PLOT.top + y(value) }), draw("text", { x: PLOT.left - 7, y: PLOT.top + y(value) + 4, "text-anchor": "end" }, short(value, 3)));
  }
  if (lines.some(({ level }) => level === null)) {
    for (const value of ticksAcross(plot.width / 95)) {
      box.append(draw("text", { x: PLOT.left + x(value), y: height - 7, "text-anchor": value ? "middle" : "start" }, placeName(value, training.log ? value : training.far)));
    }
  }
  const inner = draw("svg", { x: PLOT.left, y: PLOT.top, width: plot.width, height: plot.height }); // cuts what is above
  inner.append(...lines.map((line) => drawnRun(line, x, y, plot.width)));
  box.append(inner, ...lines.flatMap((line) => drawnDots(line, x, y)));
  nameEnds(names, x, y, plot, width).forEach((name) => box.append(...name));
  box.append(draw("line", { class: "cursor", id: "cross", y1: PLOT.top, y2: PLOT.top + plot.height, x1: -9, x2: -9 }));
  training.plot = plot;
  cross(training.at);
}
function drawnRun({ run, line, dots, level, colour }, x, y, width) {
  const group = draw("g", { "data-run": run.id, class: colour });
  let path = "", pen = "M";
  for (const [across, up] of line) {
    if (up !== null) path += `${pen}${x(across).toFixed(1)} ${y(up).toFixed(1)}`;
    pen = up === null ? "M" : "L";
  }
  if (known(line).length === 1) path += "h0"; // a point
  if (level !== null) path = `M0 ${y(level).toFixed(1)}H${width.toFixed(1)}`;
  group.append(draw("path", { d: path || "M0 0", class: level === null ? "" : "level" }));
  if (dots.length > 1) group.append(draw("polyline", { points: dots.map(([across, up]) => `${x(across).toFixed(1)},${y(up).toFixed(1)}`).join(" ") }));
  return group;
}
function drawnDots({ run, dots, colour }, x, y) {
  const radius = dots.length > 40 ? 2 : 3.5, shown = dots.filter(([, up]) => y(up) >= 0);
  return shown.map(([across, up]) => draw("circle", { cx: PLOT.left + x(across), cy: PLOT.top + y(up), r: radius, class: colour, "data-run": run.id }));
}
/* The end of a line, with its name and the size of that; `place` is how far to the right it is. */
function endOf(line, box) {
  const text = draw("text", { class: `name ${line.colour}`, "data-run": line.run.id }, readable(line.run.id));
  box.append(text);
  const size = text.getComputedTextLength();
  text.remove();
  return { line, text, size, place: line.level === null ? share(line.end?.[0] ?? 0) : 1 };
}
/* Put the names at the ends of their lines, apart from each other; one that had to move has a line to its end. */
function nameEnds(names, x, y, plot, width) {
  const placed = [], bottom = PLOT.top + plot.height;
  const ends = names.filter(({ line }) => line.level !== null || line.end).map((name) => {
    const { level, end } = name.line;
    return { ...name, x: PLOT.left + (end ? x(end[0]) : plot.width), y: PLOT.top + Math.max(0, y(level ?? end[1])) };
  }).sort((a, b) => a.y - b.y);
  for (const end of ends) {
    end.left = end.x + PLOT.gap;
    end.size = Math.min(end.size, width - end.left);
    end.at = end.y;
    const near = placed.filter((other) => other.left < end.left + end.size + 4 && end.left < other.left + other.size + 4);
    for (const other of near) if (end.at < other.at + PLOT.line) end.at = other.at + PLOT.line;
    placed.push(end);
    for (let k = placed.length - 1, floor = bottom; k >= 0 && placed[k].at > floor; k--) { placed[k].at = floor; floor -= PLOT.line; }
  }
  return placed.map(({ line, text, x, y, at, left, size }) => {
    text.setAttribute("x", left);
    text.setAttribute("y", at + 4);
    while (text.textContent.length > 4 && 6.3 * text.textContent.length > size + 6) text.textContent = `${text.textContent.slice(0, -2)}…`;
    return [...(Math.abs(at - y) > 6 ? [draw("line", { class: `lead ${line.colour}`, "data-run": line.run.id, x1: x, y1: y, x2: left - 2, y2: at })] : []), text];
  });
}
function curvesNote(lines) {
  const texts = new Set(lines.map(({ run }) => run.text)), units = new Set(lines.map(({ run }) => run.unit));
  const notes = [training.runs.some(isCurve) ? "Thin lines: training text as it was logged, nothing smoothed. Dots: validation text." : "No run here has a curve yet. Train one with charlm train TEXT, and it grows here."];
  if (lines.some(({ level }) => level !== null)) notes.push("Dashed: the best validation of a run that has no curve.");
  if (texts.size > 1) notes.push(`These runs read different texts (${[...texts].map(readable).join(", ")}), so a lower curve may be an easier text.`);
  if (training.y === "bits/token" && units.size > 1) notes.push(`Bits per token of different units (${[...units].join(", ")}) cannot be compared; bits per byte can.`);
  $("curves-note").textContent = notes.join(" ");
}
function curvesLabel(lines) {
  const ends = lines.map(({ run, level, end }) => `${run.id} ${level === null ? end ? `ends at ${end[1].toFixed(3)}` : "has no values yet" : `is at ${level.toFixed(3)}`}`);
  return `${$("curves-title").textContent} over ${training.x}: ${ends.join(", ") || "no run is chosen"}. Arrow keys move a cursor.`;
}
/* Move the cursor to a place, from 0 to 1, and list the values of the runs there. */
function cross(at) {
  const line = $("cross"), readout = $("readout"), box = $("curves");
  training.at = at;
  readout.hidden = at === null || !line;
  if (!line || !training.lines.some(({ run }) => isCurve(run))) { readout.hidden = true; return; }
  const place = at === null ? -9 : PLOT.left + training.plot.width * at, value = valueAt(at ?? 0);
  line.setAttribute("x1", place);
  line.setAttribute("x2", place);
  if (at === null) return;
  const list = make("table"), head = make("tr");
  head.append(make("th", "", `${placeName(training.x === "seconds" ? value : Math.round(value))}${training.x === "seconds" ? "" : ` ${training.x}`}`), make("th", "number", "training"), make("th", "number", "valid"));
  list.append(head, ...training.lines.map(({ run, line, dots, level, xs, colour }) => {
    const row = make("tr"), name = make("th", colour, readable(run.id)), isOver = share(value) > share(Math.max(0, ...xs)) + 0.01;
    const own = isOver ? null : nearest(known(line), value), valid = level ?? (isOver ? null : dots.findLast(([x]) => x <= value)?.[1]);
    row.append(name, make("td", "number", own?.toFixed(3) ?? "–"), make("td", "number", valid?.toFixed(3) ?? "–"));
    return row;
  }));
  readout.replaceChildren(list);
  readout.style.left = place > box.clientWidth / 2 ? "" : `${place + 12}px`;
  readout.style.right = place > box.clientWidth / 2 ? `${box.clientWidth - place + 12}px` : "";
}
/* The y of the point whose x is nearest to a value. */
function nearest(points, value) {
  return points.reduce((best, point) => best && Math.abs(best[0] - value) < Math.abs(point[0] - value) ? best : point, null)?.[1];
}
function listenToRuns() {
  const box = $("curves"), within = (place) => Math.max(0, Math.min(1, place));
  for (const id of ["per", "over"]) {
    $(id).addEventListener("change", () => {
      const chosen = (name) => document.querySelector(`[name=${name}]:checked`).value;
      Object.assign(training, { x: chosen("over"), y: chosen("per"), log: $("log").checked, at: null });
      drawRuns();
    });
  }
  $("runs-all").addEventListener("click", () => { chooseRuns(training.runs.filter(isDrawn)); drawRuns(); });
  $("runs-none").addEventListener("click", () => { chooseRuns([]); drawRuns(); });
  box.addEventListener("pointermove", (event) => { if (training.plot) cross(within((event.clientX - box.getBoundingClientRect().left - PLOT.left) / training.plot.width)); });
  box.addEventListener("pointerleave", () => cross(null));
  box.addEventListener("blur", () => cross(null));
  box.addEventListener("keydown", (event) => {
    const at = training.at ?? 0, next = { ArrowRight: at + 0.02, ArrowLeft: at - 0.02, Home: 0, End: 1 }[event.key];
    if (event.key === "Escape") cross(null);
    if (next === undefined) return;
    event.preventDefault();
    cross(within(next));
  });
}

/* ---- the page ----------------------------------------------------------------------------------- */

const VIEWS = { write: () => {}, score: showScore, inside: showInside, compare: showCompare, runs: showRuns };
const viewOf = (hash) => tabs().find((tab) => `#${tab.dataset.view}` === hash)?.dataset.view;
const tabs = () => [...document.querySelectorAll("[role=tab]")].filter((tab) => !tab.hidden);
function show(view) {
  const first = !page.view;
  if (matchMedia("(max-width: 900px)").matches && !first) point(-1); // it would cover the other view
  page.view = view;
  document.body.dataset.view = view;
  for (const panel of document.querySelectorAll("[role=tabpanel]")) panel.hidden = true;
  for (const tab of tabs()) {
    const chosen = tab.dataset.view === view;
    tab.setAttribute("aria-selected", chosen);
    tab.tabIndex = chosen ? 0 : -1;
    if (chosen) showPanel($(tab.getAttribute("aria-controls")), tab);
  }
  if (location.hash.slice(1) !== view) history[first ? "replaceState" : "pushState"](null, "", `#${view}`);
  mark(); // the token of this view
  return view === "write" || view === "runs" ? VIEWS[view]() : showText(view);
}
function showPanel(panel, tab) {
  panel.hidden = false;
  panel.setAttribute("aria-labelledby", tab.id);
  panel.querySelector(".side")?.append($("token")); // one card for both regions of text
}
function remembered(name, value) { // a page from a file may have no storage
  try {
    if (value === undefined) return localStorage.getItem(name);
    localStorage.setItem(name, value);
  } catch { /* then the choice is for this visit */ }
  return null;
}
function switchTheme() {
  const root = document.documentElement, dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  remembered("theme", root.dataset.theme);
  redraw();
}
function redraw() {
  if (page.view === "inside" && page.inside) { chart(); map(); }
  if (page.view === "runs" && training.chosen) curves();
}
/* Show another model: the text and the settings stay. */
function useModel(model) {
  writing.control?.abort();
  writing.promptIds = null; // ids of another vocabulary
  Object.assign(page, { model, text: null, score: null, inside: null, found: null, compared: null, shown: [], unit: "", signal: "" });
  document.title = `${model.id} – charlm`;
  $("model-name").textContent = model.id;
  $("model-facts").textContent = model.facts;
  $("ends-field").hidden = !model.ends;
  document.body.dataset.units = model.inside !== false;
  $("other").replaceChildren(...page.models.filter((other) => other !== model).map(({ id }) => new Option(id, id)));
  $("other-field").hidden = page.models.length < 2;
  $("write-legend").replaceChildren(...surprisalLegend());
  if (source.live) suggest(model);
}
/* Suggest a text, its beginning, and a pattern that occurs in it. What was typed stays. */
function suggest({ example }) {
  const fill = (id, value) => {
    const field = $(id);
    if (field.value === (field.dataset.suggested ?? "")) field.value = field.dataset.suggested = value;
    field.dir = directionOf(field.value);
  };
  fill("input", example);
  fill("prompt", /^\S{1,16}( \S{1,16}){0,2}/u.exec(example.trim())?.[0] ?? ""); // some languages have no blanks
  fill("pattern", (PATTERNS.find(([, pattern]) => new RegExp(pattern, "u").test($("input").value)) ?? PATTERNS[0])[1]);
}
function listenToKeys() {
  $("token").addEventListener("keydown", (event) => { if (event.key === "Escape") region().box.focus(); });
  for (const form of ["writer", "reader"]) {
    $(form).addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $(form).requestSubmit(); });
  }
  for (const tab of tabs()) {
    tab.addEventListener("click", () => show(tab.dataset.view));
    tab.addEventListener("keydown", (event) => {
      const all = tabs(), at = all.indexOf(tab), next = { ArrowRight: at + 1, ArrowLeft: at - 1 + all.length, Home: 0, End: all.length - 1 }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      all[next % all.length].focus();
      show(all[next % all.length].dataset.view);
    });
  }
}
function listenToForms() {
  const submit = (form, action) => $(form).addEventListener("submit", (event) => { event.preventDefault(); action(); });
  submit("writer", writeNew);
  submit("reader", () => showText());
  submit("finder", find);
  submit("chooser", () => choose($("unit").value.trim()));
  for (const field of document.querySelectorAll("textarea")) field.addEventListener("input", () => { field.dir = directionOf(field.value); });
  $("stop").addEventListener("click", () => { writing.control?.abort(); $("stop").disabled = true; });
  $("more").addEventListener("click", () => { if ($("writer").reportValidity()) write(); });
  $("copy").addEventListener("click", copyWritten);
  for (const id of ["temperature", "top-p"]) $(id).addEventListener("input", () => { $(`${id}-value`).textContent = Number($(id).value).toFixed(2); });
  $("other").addEventListener("change", () => showText());
  $("models").addEventListener("change", () => { useModel(page.models[$("models").selectedIndex]); show(page.view); });
  $("patterns").append(...PATTERNS.map(([name, pattern]) => buttonOf(() => { $("pattern").value = pattern; find(); }, "", name)));
}
function listen() {
  $("theme").addEventListener("click", switchTheme);
  for (const { box } of Object.values(regions)) followPointer(box);
  listenToKeys();
  listenToForms();
  listenToRuns();
  $("unit").addEventListener("change", () => choose($("unit").value.trim()));
  $("unit-before").addEventListener("click", () => step(-1));
  $("unit-after").addEventListener("click", () => step(1));
  $("signal").addEventListener("change", () => choose(page.unit, $("signal").value));
  $("chart").addEventListener("pointermove", (event) => point(Math.max(0, Math.min(page.score.tokens.length - 1, tokenUnder(event, CHART.left, CHART.right)))));
  $("map").addEventListener("click", (event) => {
    const box = event.currentTarget.getBoundingClientRect(), units = page.inside.units, at = tokenUnder(event, 0, 0);
    choose(units[Math.max(0, Math.min(units.length - 1, Math.floor((event.clientY - box.top) / box.height * units.length)))]).then(() => point(Math.max(0, at), { scroll: true, keep: true }));
  });
  addEventListener("resize", redraw);
  addEventListener("popstate", () => { if (viewOf(location.hash)) show(viewOf(location.hash)); });
  for (const media of ["print", "(prefers-color-scheme: dark)"]) matchMedia(media).addEventListener("change", redraw);
}
/* Fill the page of a server: its models, a text to begin with, and how programs use it. */
function beginServed() {
  const [{ made }] = page.models, code = make("code", "", "POST /v1/completions");
  $("models").replaceChildren(...page.models.map(({ id }) => new Option(id, id)));
  $("served").hidden = page.models.length < 2;
  $("model-name").classList.toggle("away", page.models.length > 1);
  $("footer").replaceChildren("Programs use ", code, ` at this address, in OpenAI’s form. ${made}`);
}
/* Fill the page of an export, with tabs for the views that it has data for. */
async function beginStored() {
  const [score, inside, stored, compared] = await Promise.all([source.score(), source.inside(), source.find(), source.compare()]);
  Object.assign(page, { score: { ...score, tokens: tokensOf(score) }, found: stored, compared: compared && comparedOf(compared) });
  if (inside) begunInside(inside);
  $("footer").textContent = page.model.made;
  const shown = { write: false, score: true, inside: Boolean(inside), compare: Boolean(compared), runs: false };
  for (const tab of tabs()) tab.hidden = !shown[tab.dataset.view];
  totals();
  lines();
  versus();
}
async function begin() {
  const theme = remembered("theme");
  if (theme) document.documentElement.dataset.theme = theme;
  if (!source) throw new Error("This page has no data. Make one with: charlm inside TEXT --html page.html");
  document.body.dataset.live = source.live;
  page.models = await source.models();
  useModel(page.models[0]);
  if (source.live) beginServed();
  else await beginStored();
  listen();
  found();
  const shown = show(viewOf(location.hash) ?? viewOf(`#${source.view}`) ?? tabs()[0].dataset.view);
  document.body.dataset.ready = "true";
  await shown;
}
begin().catch((error) => {
  $("problem").textContent = error.message;
  $("problem").hidden = false;
  $("model-name").textContent ||= "";
  document.body.dataset.ready = "failed";
});
