/* Page of charlm: views of a text in a model. No framework and no build step.
   Text becomes text nodes only, never HTML. A view is a function in VIEWS; data comes from `source`. */
"use strict";

const $ = (id) => document.getElementById(id);
function make(tag, classes = "", text = null) {
  const element = document.createElement(tag);
  if (classes) element.className = classes;
  if (text !== null) element.textContent = text;
  return element;
}
function draw(tag, attributes = {}, text = null) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== null) element.textContent = text;
  return element;
}

/* ---- data --------------------------------------------------------------------------------------- */

/* An export holds its data in the page; a source answers with promises, as a server would. */
function storedSource(data) {
  return { view: data.view, model: async () => data.model, score: async () => data.score, inside: async () => data.inside, find: async () => data.find, compare: async () => data.compare };
}
const stored = $("data");
const source = stored ? storedSource(JSON.parse(stored.textContent)) : null;
const page = { model: null, score: null, inside: null, found: null, compared: null, view: "score", items: [], at: -1, unit: "", signal: "", shown: [] };

function bytes(text) {
  const binary = atob(text), values = new Int8Array(binary.length);
  for (let k = 0; k < binary.length; k++) values[k] = binary.charCodeAt(k) << 24 >> 24;
  return values;
}
/* Tokens as objects, from rows by the names of their columns. */
const tokensOf = ({ tokens, columns }) => tokens.map((row) => Object.fromEntries(columns.map((name, k) => [name, row[k]])));
/* Values of a unit after each token; a signal has 8 bits a value, and a scale for each unit. */
function valuesOf(unit, signal) {
  const data = page.inside?.signals[signal], row = page.inside?.units.indexOf(unit) ?? -1;
  if (!data || row < 0) return null;
  data.values ??= bytes(data.data);
  const count = page.score.tokens.length, scale = data.scales[row] / 127;
  return Array.from(data.values.subarray(row * count, (row + 1) * count), (value) => value * scale);
}
const signalOf = (id) => page.inside.names.find((signal) => signal.id === id);

/* ---- colours ------------------------------------------------------------------------------------ */

function surprisalClass(bits) {
  const bounds = page.score.bounds;
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
  const bar = make("span", "scale");
  for (const [label, classes] of pairs) bar.append(make("span", classes, label));
  return bar;
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
function span(token, index, level) {
  const element = make("span", `t ${level}`, token.text);
  element.dataset.at = index;
  if (token.oov) element.classList.add("unknown");
  if (isEnd(token) || token.text.includes("\n")) element.classList.add("end");
  else if (token.text === "") element.classList.add("part");
  else if (token.text === "\t") element.classList.add("tab");
  else if (readable(token.text) !== token.text) {
    element.classList.add("control");
    element.dataset.shown = readable(token.text);
    element.textContent = "";
  }
  return element;
}
/* Show items, tokens or other parts of the text, in the colours of their levels. */
function paint(items, levelOf, legend) {
  const part = document.createDocumentFragment();
  if (items !== page.items) page.at = -1;
  page.items = items;
  items.forEach((item, index) => part.append(span(item, index, levelOf(item, index))));
  $("text").replaceChildren(part);
  $("legend").replaceChildren(...legend);
  mark();
}
const place = (index) => $("text").children[index];

/* Point at an item: mark it, and show what is known about it. */
function point(index, scroll = false) {
  if (index < -1 || index >= page.items.length) return;
  page.at = index;
  mark();
  if (scroll) place(index)?.scrollIntoView({ block: "nearest" });
}
function mark() {
  $("text").querySelector(".here")?.classList.remove("here");
  place(page.at)?.classList.add("here");
  card(page.items[page.at]);
  cursor();
}
function card(token) {
  const box = $("token");
  box.classList.toggle("open", Boolean(token));
  if (!token) {
    box.replaceChildren(make("p", "soft", "Point at a token, or move with the arrow keys, to see what the model expected there."));
    return;
  }
  const which = make("div", "which"), facts = make("span"), shut = make("button", "shut", "×");
  shut.type = "button";
  shut.setAttribute("aria-label", "Close");
  shut.addEventListener("click", () => point(-1));
  facts.append(make("strong", "", token.bits === null ? "impossible" : `${token.bits.toFixed(2)} bits`), ` · rank ${token.rank}${token.oov ? " · not in the vocabulary" : ""}`);
  which.append(make("b", "", nameOf(token.name)), facts, shut);
  box.replaceChildren(which);
  if (page.view === "compare") {
    facts.replaceChildren(make("strong", "", `${signed(token.bits - token.other_bits)} bits`));
    box.append(make("p", "soft", `${page.model.id} ${token.bits.toFixed(2)} bits, ${page.compared.other} ${token.other_bits.toFixed(2)} bits`));
    return;
  }
  if (page.view === "inside") {
    const value = valuesOf(page.unit, page.signal)?.[page.at];
    if (value !== undefined) box.append(make("p", "soft", `${signalOf(page.signal).name} of unit ${page.unit} after it: ${value.toFixed(3)}`));
  }
  const list = make("ul", "others");
  for (const [name, chance] of token.top) {
    const row = make("li", name === token.name ? "own" : ""), meter = make("meter");
    meter.value = chance;
    meter.setAttribute("aria-hidden", "true");
    row.append(make("code", "", nameOf(name)), meter, make("span", "", chance < 0.0005 ? "<0.1 %" : `${(100 * chance).toFixed(1)} %`));
    list.append(row);
  }
  if (token.top.length) box.append(list);
}
/* Arrow keys: the token beside, or the nearest one in the line above or below. */
function followKeys(event) {
  const last = page.items.length - 1, at = Math.max(page.at, 0);
  const ahead = getComputedStyle($("text")).direction === "rtl" ? -1 : 1;
  const steps = { ArrowRight: page.at + ahead, ArrowLeft: page.at - ahead, Home: 0, End: last };
  let next = steps[event.key];
  if (event.key === "ArrowDown" || event.key === "ArrowUp") next = lineBeside(at, event.key === "ArrowDown" ? 1 : -1);
  if (event.key === "Escape") return point(-1);
  if (next === undefined) return;
  event.preventDefault();
  point(Math.max(0, Math.min(last, next)), true);
}
function lineBeside(at, step) {
  const from = place(at)?.getClientRects()[0];
  if (!from) return at;
  let best = at, near = Infinity, line = null;
  for (let k = at + step; k >= 0 && k < page.items.length; k += step) {
    const box = place(k).getClientRects()[0];
    if (!box || Math.abs(box.top - from.top) < 4) continue;
    line ??= box.top;
    if (Math.abs(box.top - line) > 4) break;
    if (Math.abs(box.left - from.left) < near) { near = Math.abs(box.left - from.left); best = k; }
  }
  return best;
}

/* ---- Score -------------------------------------------------------------------------------------- */

function showScore() {
  const bounds = page.score.bounds;
  paint(page.score.tokens, (token) => surprisalClass(token.bits ?? Infinity), [
    make("span", "", "bits"),
    scale(bounds.map((bound, level) => [bound.toFixed(1), level ? `s${level}` : ""])),
    make("span", "", `a blind guess among ${page.model.entries.toLocaleString("en")}: ${page.score.blind_guess.toFixed(1)} bits`),
  ]);
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
function lines() {
  const all = [];
  let line = { text: "", bits: 0 };
  for (const token of page.score.tokens) {
    line.text += token.text;
    line.bits += token.bits ?? Infinity;
    if (token.text.includes("\n")) { all.push(line); line = { text: "", bits: 0 }; }
  }
  if (line.text) all.push(line);
  else if (line.bits && all.length) all.at(-1).bits += line.bits; // the end of the text
  for (const each of all) each.mean = each.bits / Math.max(1, [...each.text].length);
  const means = all.map((each) => each.mean), best = Math.min(...means), worst = Math.max(...means, 1e-9);
  $("lines").tBodies[0].replaceChildren(...all.slice(0, 500).map((each, number) => {
    const row = make("tr"), size = make("td"), meter = make("meter"), text = make("td", "cut", readable(each.text.replace(/\n$/, "")));
    text.dir = "auto";
    meter.value = each.mean / worst;
    meter.setAttribute("aria-hidden", "true");
    size.append(meter);
    row.append(
      make("td", "number soft", String(number + 1)), make("td", "number", (-each.bits * Math.LN2).toFixed(2)),
      make("td", all.length > 1 && each.mean === best ? "number best" : "number", each.mean.toFixed(3)), size, text,
    );
    return row;
  }));
}

/* ---- Inside ------------------------------------------------------------------------------------- */

function showInside() {
  const values = valuesOf(page.unit, page.signal) ?? [], signal = signalOf(page.signal), most = signal.gate ? 1 : fullValue(values);
  paint(page.score.tokens, (token, index) => signedClass(signal.gate ? 2 * values[index] - 1 : values[index] / most), [
    make("span", "", signal.gate ? "0 shut" : `${-most}`), scale(SIGNED.map(([label, name]) => [signal.gate && !name ? "½" : label, name])), make("span", "", signal.gate ? "1 open" : `${most}`),
    make("span", "", `${signal.name} of unit ${page.unit} after each token`),
  ]);
  for (const row of $("found").tBodies[0].rows) row.setAttribute("aria-selected", row.dataset.unit === page.unit && row.dataset.signal === page.signal);
  chart();
  map();
}
function choose(unit, signal = page.signal) {
  const status = $("unit-status");
  status.classList.toggle("wrong", !page.inside.units.includes(unit));
  if (!page.inside.units.includes(unit)) {
    status.textContent = `No unit ${unit}; expected one of ${page.inside.units[0]} to ${page.inside.units.at(-1)}`;
    return;
  }
  status.textContent = "";
  page.unit = unit;
  page.signal = signal;
  if (!page.shown.includes(signal)) page.shown = [signal, ...page.shown].slice(0, 2);
  $("unit").value = unit;
  $("signal").value = signal;
  showInside();
}
function step(by) {
  const units = page.inside.units;
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
    box.append(draw("path", { d: path, class: `c${page.inside.names.findIndex((signal) => signal.id === id) % 6}` }));
  }
  box.append(draw("line", { class: "cursor", id: "cursor", y1: 0, y2: height, x1: -9, x2: -9 }));
  $("signals").replaceChildren(...page.inside.names.filter(({ id }) => page.inside.signals[id]).map(({ id, name }, k) => {
    const button = make("button", `c${page.inside.names.findIndex((signal) => signal.id === id) % 6}`, name);
    button.type = "button";
    button.setAttribute("aria-pressed", page.shown.includes(id));
    button.addEventListener("click", () => {
      page.shown = page.shown.includes(id) ? page.shown.filter((each) => each !== id) : [...page.shown, id];
      chart();
      $("signals").children[k].focus();
    });
    return button;
  }));
  cursor();
}
function cursor() {
  const line = $("cursor"), box = $("chart");
  if (!line || page.view !== "inside") return;
  const x = page.at < 0 ? -9 : CHART.left + (box.clientWidth - CHART.left - CHART.right) * (page.at + 0.5) / page.score.tokens.length;
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
  const canvas = $("map"), count = page.score.tokens.length, units = page.inside.units, signal = signalOf(page.signal), data = page.inside.signals[page.signal];
  data.values ??= bytes(data.data);
  $("map-note").textContent = `${units.length} units × ${count} tokens, ${signal.name}${signal.gate ? "" : ", each row by its own scale"}; layer 1 on top`;
  if (!count || !units.length) return;
  const columns = Math.min(count, 4000), colours = levelColours();
  canvas.width = columns;
  canvas.height = units.length;
  const drawing = canvas.getContext("2d"), image = drawing.createImageData(columns, units.length), pixels = new Uint32Array(image.data.buffer);
  for (let unit = 0; unit < units.length; unit++) {
    const full = signal.gate ? data.scales[unit] : fullScale(data, unit);
    for (let column = 0; column < columns; column++) {
      const value = data.values[unit * count + Math.floor(column * count / columns)] / 127;
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

function found() {
  const answer = page.found;
  $("found-card").hidden = !answer;
  if (!answer) return;
  $("found-title").textContent = answer.pattern === "column" ? "Units that know the place in the line" : "Units that know where this matches";
  $("found-note").replaceChildren(make("code", "", answer.pattern), ": r is on the half of the text by which units are ranked, held out on the other.");
  $("found").tBodies[0].replaceChildren(...answer.units.map((each) => {
    const row = make("tr"), name = make("td"), button = make("button", "", `${each.unit} ${each.signal}`), size = make("td"), meter = make("meter");
    row.dataset.unit = each.unit;
    row.dataset.signal = each.signal;
    button.type = "button";
    button.addEventListener("click", () => choose(each.unit, each.signal));
    meter.value = Math.abs(each.r_held_out ?? 0);
    meter.setAttribute("aria-hidden", "true");
    name.append(button);
    size.append(meter);
    row.append(name, make("td", "number", each.r.toFixed(2)), make("td", "number", each.r_held_out === null ? "–" : each.r_held_out.toFixed(2)), size);
    return row;
  }));
}

/* ---- Compare ------------------------------------------------------------------------------------ */

const signed = (value) => `${value > 0 ? "+" : ""}${value.toFixed(2)}`;
function showCompare() {
  const { other, full } = page.compared;
  paint(page.compared.parts, (part) => signedClass((part.bits - part.other_bits) / full), [
    make("span", "", `${page.model.id} ${full} bits better`), scale(SIGNED), make("span", "", `${other} ${full} bits better`),
  ]);
}
function versus() {
  if (!page.compared) return;
  const { other, parts } = page.compared, id = page.model.id, sum = (name) => parts.reduce((total, part) => total + part[name], 0);
  const characters = Math.max(1, [...parts.map((part) => part.text).join("")].length), own = sum("bits"), theirs = sum("other_bits");
  const won = parts.filter((part) => part.bits < part.other_bits).length / Math.max(1, parts.length);
  $("versus").replaceChildren(make("h2", "", `${id} beside ${other}`), figures([
    [`${id}, bits/char`, (own / characters).toFixed(3)], [`${other}, bits/char`, (theirs / characters).toFixed(3)],
    ["difference, bits", signed(own - theirs)], [`parts that ${id} expects more`, `${Math.round(100 * won)} %`],
  ]));
}

/* ---- the page ----------------------------------------------------------------------------------- */

const VIEWS = { score: showScore, inside: showInside, compare: showCompare };
const tabs = () => [...document.querySelectorAll("[role=tab]")].filter((tab) => !tab.hidden);
function show(view) {
  page.view = view;
  document.body.dataset.view = view;
  for (const tab of tabs()) {
    const chosen = tab.dataset.view === view;
    tab.setAttribute("aria-selected", chosen);
    tab.tabIndex = chosen ? 0 : -1;
    if (chosen) { $(tab.getAttribute("aria-controls")).hidden = false; $(tab.getAttribute("aria-controls")).setAttribute("aria-labelledby", tab.id); }
  }
  history.replaceState(null, "", `#${view}`);
  VIEWS[view]();
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
  if (page.view === "inside") map();
}
function listen() {
  $("theme").addEventListener("click", switchTheme);
  const text = $("text"), at = (event) => { const token = event.target.closest(".t"); if (token) point(Number(token.dataset.at)); };
  text.addEventListener("pointerover", at);
  text.addEventListener("click", at);
  text.addEventListener("keydown", followKeys);
  for (const tab of tabs()) {
    tab.addEventListener("click", () => show(tab.dataset.view));
    tab.addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key], all = tabs();
      if (!by) return;
      const next = all[(all.indexOf(tab) + by + all.length) % all.length];
      next.focus();
      show(next.dataset.view);
    });
  }
  $("chooser").addEventListener("submit", (event) => { event.preventDefault(); choose($("unit").value.trim()); });
  $("unit").addEventListener("change", () => choose($("unit").value.trim()));
  $("unit-before").addEventListener("click", () => step(-1));
  $("unit-after").addEventListener("click", () => step(1));
  $("signal").addEventListener("change", () => choose(page.unit, $("signal").value));
  $("chart").addEventListener("pointermove", (event) => point(Math.max(0, Math.min(page.score.tokens.length - 1, tokenUnder(event, CHART.left, CHART.right)))));
  $("map").addEventListener("click", (event) => {
    const box = event.currentTarget.getBoundingClientRect(), units = page.inside.units;
    choose(units[Math.max(0, Math.min(units.length - 1, Math.floor((event.clientY - box.top) / box.height * units.length)))]);
    point(Math.max(0, tokenUnder(event, 0, 0)), true);
  });
  addEventListener("resize", () => { if (page.view === "inside") chart(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (page.view === "inside") map(); });
}
async function begin() {
  const theme = remembered("theme");
  if (theme) document.documentElement.dataset.theme = theme;
  if (!source) throw new Error("This page has no data. Make one with: charlm inside TEXT --html page.html");
  [page.model, page.score, page.inside, page.found, page.compared] = await Promise.all([source.model(), source.score(), source.inside(), source.find(), source.compare()]);
  page.score.tokens = tokensOf(page.score);
  document.title = `${page.model.id} – charlm`;
  $("model-name").textContent = page.model.id;
  $("model-facts").textContent = page.model.facts;
  $("footer").textContent = page.model.made;
  $("tab-inside").hidden = !page.inside;
  $("tab-compare").hidden = !page.compared;
  if (page.inside) {
    for (const { id, name } of page.inside.names) if (page.inside.signals[id]) $("signal").append(new Option(name, id));
    page.unit = page.inside.unit;
    page.signal = page.inside.signal;
    page.shown = ["h", page.signal].filter((id, k, all) => page.inside.signals[id] && all.indexOf(id) === k);
    $("unit").value = page.unit;
    $("signal").value = page.signal;
  }
  listen();
  totals();
  lines();
  found();
  versus();
  const wanted = location.hash.slice(1) || source.view;
  show(tabs().some((tab) => tab.dataset.view === wanted) ? wanted : "score");
  document.body.dataset.ready = "true";
}
begin().catch((error) => {
  $("problem").textContent = error.message;
  $("problem").hidden = false;
  document.body.dataset.ready = "failed";
});
