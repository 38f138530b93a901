"use strict";
const $ = (id) => document.getElementById(id);
const make = (name, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
};

// ---- Tables: a heading's button sorts by its column, then in reverse, then restores the order.

function value(row, column) {
  const cell = row.cells[column];
  if (cell.classList.contains("none")) return null;
  return cell.dataset.sort === undefined ? cell.textContent.trim() : Number(cell.dataset.sort);
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

function sortable(table) {
  const body = table.tBodies[0];
  const original = [...body.rows];
  const headings = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  headings.forEach((heading, column) => {
    // Numbers start with the largest, texts with the first letter.
    const numbers = heading.classList.contains("number");
    const orders = numbers ? ["descending", "ascending"] : ["ascending", "descending"];
    heading.setAttribute("aria-sort", "none");
    heading.querySelector("button").addEventListener("click", () => {
      const order = orders[orders.indexOf(heading.getAttribute("aria-sort")) + 1] || "none";
      headings.forEach((other) => other.setAttribute("aria-sort", "none"));
      heading.setAttribute("aria-sort", order);
      const sign = order === "descending" ? -1 : 1;
      const rows = [...original];
      if (order !== "none") {
        rows.sort((one, two) => {
          const [a, b] = [value(one, column), value(two, column)];
          if (a === null || b === null) return (a === null) - (b === null); // dashes come last
          return sign * compare(a, b);
        });
      }
      body.append(...rows);
    });
  });
}

document.querySelectorAll("table.sortable").forEach(sortable);

// ---- A link to something that is folded away opens it first.

addEventListener("click", (event) => {
  const href = event.target.closest?.("a")?.getAttribute("href") ?? "";
  let folded = /^#[\w-]+$/.test(href) ? $(href.slice(1)) : null;
  while ((folded = folded?.closest("details:not([open])"))) folded.open = true;
});

// ---- MLflow: this file cannot know where it is served. Its reader names the address in the field,
// or `vmunet ui` does at the end of the page's own address: #mlflow=http://host:port

const field = $("mlflow-address");
const usual = field.defaultValue; // the address in the links as they were written
const links = new Map(); // each link to MLflow, with the part after the address
let served = usual;

function leadTo(link, address) {
  links.set(link, address.slice(usual.length));
  link.href = served + links.get(link);
}

/** Points every link to the MLflow at `address` and keeps it; returns whether it is an address. */
function serve(address) {
  let url;
  try { url = new URL(address); } catch { return false; }
  if (!["http:", "https:"].includes(url.protocol)) return false;
  served = (url.origin + url.pathname).replace(/\/+$/, "");
  field.value = served;
  links.forEach((rest, link) => { link.href = served + rest; });
  try { localStorage.setItem("vmunet-mlflow", served); } catch { /* storage may be off in the browser */ }
  return true;
}

function serveAsNamed() {
  const named = location.hash.match(/^#mlflow=(.+)$/);
  return named !== null && serve(named[1]);
}

document.querySelectorAll(`a[href^="${usual}/"]`).forEach((a) => leadTo(a, a.getAttribute("href")));
let kept = null;
try { kept = localStorage.getItem("vmunet-mlflow"); } catch { /* storage may be off in the browser */ }
if (!serveAsNamed() && kept) serve(kept);
$("mlflow-at").hidden = false;
addEventListener("hashchange", serveAsNamed);
field.addEventListener("change", () => { if (!serve(field.value)) field.value = served; });

// ---- Figures: a dialog shows a figure larger.

document.querySelectorAll(".enlarge").forEach((button) => {
  button.addEventListener("click", () => {
    const image = button.querySelector("img");
    Object.assign($("large"), { src: image.src, alt: image.alt });
    $("larger").showModal();
  });
});
if ($("larger")) {
  $("close").addEventListener("click", () => $("larger").close());
  $("larger").addEventListener("click", (event) => {
    if (event.target === $("larger")) $("larger").close();
  });
}

window.addEventListener("beforeprint", () => {
  document.querySelectorAll("details.notes, details.table").forEach((details) => (details.open = true));
});

// ---- Test cases. A view's data are parsed when it is chosen; a picture is decoded when it is shown.

const sources = [...document.querySelectorAll("script.cases")];
const views = new Map(); // by place
const state = { view: 0, run: 0, place: 0, order: [], drawing: 0 };

function viewAt(place) {
  if (!views.has(place)) views.set(place, JSON.parse(sources[place].textContent));
  return views.get(place);
}
const view = () => viewAt(state.view);
const run = () => view().runs[state.run];
const percent = (score) => (score === null ? "\u2013" : (100 * score).toFixed(1));

const pictures = new Map(); // the latest decoded pictures, by address
async function picture(address) {
  if (!pictures.has(address)) {
    const image = new Image();
    image.src = address;
    pictures.set(address, image.decode().then(() => image));
    if (pictures.size > 80) pictures.delete(pictures.keys().next().value);
  }
  return pictures.get(address);
}

const lazy = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    lazy.unobserve(target);
    const place = Number(target.dataset.place);
    const [image, over] = target.querySelectorAll("img");
    image.src = view().images[place];
    over.src = run().cases[place].agreement;
  }
}, { root: $("list"), rootMargin: "200px" });

function fillList() {
  const [wanted, cases] = [$("search").value.trim().toLowerCase(), run().cases];
  const keys = {
    worst: (i) => cases[i].score ?? 2,
    best: (i) => -(cases[i].score ?? -2),
    large: (i) => -cases[i].size,
    small: (i) => cases[i].size,
    apart: (i) => -spread(i),
    id: () => 0,
  };
  const key = keys[$("order").value];
  const byId = (i, j) => compare(view().ids[i], view().ids[j]);
  state.order = view().ids.map((_, i) => i)
    .filter((i) => view().ids[i].toLowerCase().includes(wanted))
    .sort((i, j) => key(i) - key(j) || byId(i, j));
  lazy.disconnect();
  $("list").replaceChildren(...state.order.map((i) => {
    const thumb = make("span", { className: "thumb" }, make("img", { alt: "" }), make("img", { alt: "" }));
    const id = make("span", { className: "id", textContent: view().ids[i] });
    const score = make("b", { textContent: percent(cases[i].score) });
    const item = make("li", { id: `case-${i}`, role: "option" }, thumb, id, score);
    item.dataset.place = i;
    lazy.observe(item);
    return item;
  }));
  const [shown, all] = [state.order.length, view().ids.length];
  $("shown").textContent = shown
    ? `${shown} of ${all} ${view().noun}s, with their Dice`
    : `none of ${all} ids contains it; the ${view().noun} beside stays`;
  mark();
}

function mark() {
  for (const item of $("list").querySelectorAll("[aria-selected]")) item.removeAttribute("aria-selected");
  const item = $(`case-${state.place}`);
  $("list").setAttribute("aria-activedescendant", item ? item.id : "");
  if (!item) return;
  item.setAttribute("aria-selected", "true");
  const [list, top] = [$("list"), item.offsetTop - $("list").offsetTop];
  if (top < list.scrollTop) list.scrollTop = top;
  else if (top + item.offsetHeight > list.scrollTop + list.clientHeight) {
    list.scrollTop = top + item.offsetHeight - list.clientHeight;
  }
}

/** Shows case `place` of the chosen view and run; with `named` the page's address names the case. */
function show(place, named = true) {
  state.place = place;
  const [id, shown] = [view().ids[place], run().cases[place]];
  $("now").textContent = `${id}: Dice ${percent(shown.score)}`;
  $("facts").replaceChildren(...shown.facts.map(([name, text]) =>
    make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: text }))));
  $("metrics").href = run().metrics;
  $("mlflow").hidden = !run().mlflow;
  if (run().mlflow) leadTo($("mlflow"), run().mlflow);
  mark();
  draw();
  drawModels();
  if (named) {
    const parts = [view().view, id, run().key].map(encodeURIComponent);
    history.replaceState(null, "", `#case=${parts[0]}/${parts[1]}&run=${parts[2]}`);
  }
}

function step(by) {
  const { order } = state;
  if (!order.length) return;
  const at = order.indexOf(state.place);
  const next = at < 0 ? 0 : Math.min(order.length - 1, Math.max(0, at + by));
  if (order[next] !== state.place) show(order[next]);
}

/** A mask's rim, `width` px wide, in its own colours or in `colour`. */
function rim(mask, canvas, width, colour) {
  const made = make("canvas", { width: canvas.width, height: canvas.height });
  const context = made.getContext("2d");
  context.imageSmoothingEnabled = false;
  for (let k = 0; k < 16; k++) {
    const [x, y] = [Math.cos(k * Math.PI / 8), Math.sin(k * Math.PI / 8)];
    context.drawImage(mask, width * x, width * y, made.width, made.height);
  }
  if (colour) {
    context.globalCompositeOperation = "source-in";
    Object.assign(context, { fillStyle: colour }).fillRect(0, 0, made.width, made.height);
  }
  context.globalCompositeOperation = "destination-out";
  context.drawImage(mask, 0, 0, made.width, made.height);
  return made;
}

function paint(canvas, image, mask, fill, outlined) {
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  if (!mask) return;
  context.imageSmoothingEnabled = false;
  context.globalAlpha = fill;
  context.drawImage(mask, 0, 0, canvas.width, canvas.height);
  context.globalAlpha = 1;
  if (outlined) {
    const width = Math.max(2, canvas.width / 250);
    context.drawImage(rim(mask, canvas, 1.6 * width, "#000"), 0, 0);
    context.drawImage(rim(mask, canvas, width), 0, 0);
  }
}

async function draw() {
  const drawing = ++state.drawing;
  const [place, mode, shown] = [state.place, document.querySelector("[name=mode]:checked").value, run().cases[state.place]];
  const wanted = { masks: [shown.truth, shown.prediction], agreement: [null, shown.agreement], plain: [null, null] }[mode];
  const sides = { masks: view().sides, agreement: ["Image", "Agreement"], plain: ["Image", "Image"] }[mode];
  const [image, ...masks] = await Promise.all([view().images[place], ...wanted].map((a) => a && picture(a)));
  if (drawing !== state.drawing) return; // a newer drawing has started
  const across = Math.min(1280, Math.round($("stage").clientWidth * devicePixelRatio)) || 512;
  const fill = mode === "agreement" ? 0.7 : view().legend.masks.length > 2 ? 0.55 : 0.2;
  ["left", "right"].forEach((side, k) => {
    const canvas = $(side);
    canvas.width = across;
    canvas.height = Math.round(across * image.naturalHeight / image.naturalWidth);
    canvas.setAttribute("aria-label", `${view().ids[place]}: ${sides[k]}`);
    $(`${side}-side`).textContent = sides[k];
    paint(canvas, image, masks[k], fill, mode === "masks");
  });
  $("split").setAttribute("aria-label", `Divider between ${sides[0]} and ${sides[1]}`);
  const colours = view().legend[mode] || [];
  $("legend").replaceChildren(...colours.map(([name, colour]) => {
    const swatch = make("i");
    swatch.style.backgroundColor = colour;
    return make("li", {}, swatch, name);
  }));
  $("stage").dataset.drawn = `${view().ids[place]} ${mode}`;
}

function split() {
  $("stage").style.setProperty("--split", `${$("split").value}%`);
  $("split").setAttribute("aria-valuetext", `${$("split").value}% from the left`);
}

function chooseView(place, key) {
  state.view = place;
  const runs = view().runs;
  state.run = Math.max(0, runs.findIndex((one) => one.key === key));
  $("view").value = place;
  Object.assign($("warning"), { textContent: view().warning, hidden: !view().warning });
  $("run").replaceChildren(...runs.map((one, i) => make("option", { value: i, textContent: one.title })));
  $("run").value = state.run;
  const { models } = view();
  $("models").hidden = !models.length;
  $("apart").hidden = $("apart").disabled = !models.length;
  if (!models.length && $("order").value === "apart") $("order").value = "worst";
  fillList();
}

/** Goes to the case that the page's address names; returns whether the page has this case. */
function follow() {
  const match = location.hash.match(/^#case=([^/]+)\/([^&]+)(?:&run=(.+))?$/);
  if (!match) return false;
  let parts;
  try { parts = match.slice(1).map((part) => part && decodeURIComponent(part)); } catch { return false; }
  const place = sources.findIndex((one) => one.dataset.view === parts[0]);
  const at = place < 0 ? -1 : viewAt(place).ids.indexOf(parts[1]);
  if (at < 0) return false;
  $("search").value = "";
  chooseView(place, parts[2]);
  show(at, false);
  $("cases").scrollIntoView();
  return true;
}

/** Keys within the viewer: up and down step through the cases; so do left and right off the divider. */
function keys(event) {
  const { key, target } = event;
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  if (target.type === "radio" || target.tagName === "SELECT") return;
  const sideways = target.type !== "range" && target.type !== "search";
  const [last, page] = [state.order.length, 10];
  const steps = { ArrowUp: -1, ArrowDown: 1 };
  if (sideways) Object.assign(steps, { ArrowLeft: -1, ArrowRight: 1 });
  if (target.id === "list") Object.assign(steps, { Home: -last, End: last, PageUp: -page, PageDown: page });
  if (key in steps) {
    event.preventDefault();
    step(steps[key]);
  }
}

function start() {
  $("viewer").hidden = false;
  $("view").append(...sources.map((one, i) => make("option", { value: i, textContent: one.dataset.title })));
  $("view").addEventListener("change", () => {
    chooseView(Number($("view").value), run().key);
    if (state.order.length) show(state.order[0]);
  });
  $("run").addEventListener("change", () => {
    state.run = Number($("run").value);
    fillList();
    show(state.place);
  });
  $("search").addEventListener("input", () => {
    fillList();
    if (state.order.length && !state.order.includes(state.place)) show(state.order[0], false);
  });
  $("order").addEventListener("change", fillList);
  $("models-order").addEventListener("change", drawModels);
  $("list").addEventListener("click", (event) => {
    const item = event.target.closest("li");
    if (item) show(Number(item.dataset.place));
  });
  $("viewer").addEventListener("keydown", keys);
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  document.querySelectorAll("[name=mode]").forEach((radio) => radio.addEventListener("change", draw));
  $("split").addEventListener("input", split);
  const drag = (event) => { // on a touch screen a range input follows only its thumb
    if (event.type === "pointermove" && !event.buttons) return;
    const { left, width } = $("stage").getBoundingClientRect();
    $("split").value = Math.round(100 * (event.clientX - left) / width);
    split();
  };
  $("split").addEventListener("pointerdown", drag);
  $("split").addEventListener("pointermove", drag);
  addEventListener("hashchange", follow);
  new ResizeObserver(() => draw()).observe($("stage"));
  split();
  if (!follow()) {
    chooseView(0);
    show(state.order[0], false);
  }
}

if (sources.length) start();
