"use strict";
const content = JSON.parse(document.getElementById("content").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
// What the charts and the surfaces share: which runs are shown, and the step that is looked at.
const shared = {
  hidden: new Set(),
  step: null,
  listeners: [],
  tell(what, from) { for (const each of this.listeners) if (each !== from) each(what); },
  look(step, from) { this.step = step; this.tell("step", from); },
};

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== false && value !== null) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colourName = (run) => `--r${run % 8}`;
for (const each of document.querySelectorAll(".swatch[data-run]")) {
  each.style.setProperty("--run", `var(${colourName(+each.dataset.run)})`);
}
for (const box of document.querySelectorAll(".legend input")) {
  box.addEventListener("change", () => {
    shared.hidden[box.checked ? "delete" : "add"](+box.dataset.run);
    shared.tell("runs");
  });
}

// Canvases do not follow the theme by themselves. Paper is light whatever the screen is.
dark.addEventListener("change", () => shared.tell("theme"));
addEventListener("beforeprint", () => { document.documentElement.dataset.light = ""; shared.tell("theme"); });
addEventListener("afterprint", () => { delete document.documentElement.dataset.light; shared.tell("theme"); });

const superscript = (text) => text.replace(/[-0-9]/g, (c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c]));
function show(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (Number.isInteger(value) && Math.abs(value) < 1e7) return value.toLocaleString("en-GB").replace("-", "−");
  const [mantissa, power] = (Math.abs(value) >= 1e6 || Math.abs(value) < 1e-4
    ? value.toExponential(digits - 1).replace(/\.?0+e/, "e")
    : String(+value.toPrecision(digits))).split("e");
  const shown = mantissa.replace("-", "−");
  return power ? (shown === "1" ? "" : `${shown}×`) + `10${superscript(String(+power))}` : shown;
}

const unpack = (list) =>
  list && !Array.isArray(list) ? Array.from({ length: list.n }, (_, k) => list.from + k * list.by) : list;

// The last place in a sorted list whose value is not above x; -1 before the first.
function upTo(list, x) {
  let low = 0, high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle] <= x) low = middle + 1; else high = middle;
  }
  return low - 1;
}

function ticks(low, high, most) {
  const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
  const by = power * [1, 2, 5, 10].find((each) => each * power >= rough);
  const found = [];
  for (let k = Math.ceil(low / by); k * by <= high + by * 1e-9; k += 1) found.push(+(k * by).toPrecision(12));
  return found;
}
