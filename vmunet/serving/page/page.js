"use strict";

const at = (id) => document.getElementById(id);
let about = null; // what the server says about the weights, the limits and the examples
let file = null; // the image that is shown; the slider segments it again
let request = null; // the newest upload, which a newer one aborts

// Tell the person what happens, or why nothing does. An error hides the result of another file.
function say(text) {
  at("status").textContent = text;
  at("error").textContent = "";
}

function refuse(text) {
  file = null;
  at("status").textContent = "";
  at("error").textContent = text;
  at("result").hidden = true;
}

function choose(files) {
  if (files.length === 1) {
    file = files[0];
    segment();
  } else if (files.length > 1) {
    refuse(`${files.length} files: the page takes one image at a time; vmunet predict takes folders.`);
  }
}

async function segment() {
  request?.abort();
  request = new AbortController();
  const { signal } = request;
  const { name, size } = file;
  if (size > about.most_bytes) {
    const megabytes = Math.round(about.most_bytes / 2 ** 20);
    refuse(`${name}: larger than ${megabytes} MB; segment it with vmunet predict.`);
    return;
  }
  say(`${name}: being segmented ...`);
  at("result").ariaBusy = "true";
  const query = new URLSearchParams({ name });
  if (about.has_threshold) query.set("threshold", at("level").value);
  const start = performance.now();
  try {
    const reply = await fetch(`segment?${query}`, { method: "POST", body: file, signal });
    const answer = await reply.json();
    if (reply.ok) show(answer, (performance.now() - start) / 1000);
    else refuse(answer.error);
  } catch (error) {
    if (error.name === "AbortError") return;
    refuse(`${name}: no answer. Either vmunet serve has ended, or the file cannot be read.`);
  }
  at("result").ariaBusy = "false";
}

function show(answer, seconds) {
  say(`${answer.name}: ${answer.width} × ${answer.height} px, segmented in ${seconds.toFixed(1)} s.`);
  for (const picture of ["image", "overlay", "mask"]) at(picture).src = answer[picture];
  at("result").querySelector("tbody").replaceChildren(...answer.areas.map(row));
  at("download").href = answer.download;
  at("download").download = answer.download_name;
  at("result").hidden = false;
}

function row(area) {
  const swatch = element("span", { className: "swatch" });
  swatch.style.background = area.colour;
  const name = element("th", { scope: "row" }, swatch, area.name);
  const share = element("td", {}, `${(100 * area.share).toFixed(2)} %`);
  return element("tr", {}, name, share, element("td", {}, area.pixels.toLocaleString("en")));
}

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children); // texts stay texts
  return made;
}

function offerExamples() {
  const items = about.examples.map((name, index) => {
    const address = `examples/${index}`;
    const picture = element("img", { src: address, alt: `Test image ${name}` });
    const button = element("button", { type: "button", title: name }, picture);
    button.addEventListener("click", async () => {
      const reply = await fetch(address);
      choose([new File([await reply.blob()], name)]);
    });
    return element("li", {}, button);
  });
  at("examples").querySelector("ul").replaceChildren(...items);
  at("examples").hidden = items.length === 0;
}

async function start() {
  about = await (await fetch("about")).json();
  const classes = about.classes.length === 1 ? "class" : "classes";
  at("about").textContent =
    `VM-UNet, weights ${about.weights} · ${about.models} · ${classes}: ${about.classes.join(", ")}`;
  const megabytes = Math.round(about.most_bytes / 2 ** 20);
  at("limits").textContent =
    `${about.suffixes.join(", ")}; at most ${about.most_megapixels} megapixels and ${megabytes} MB`;
  at("file").accept = about.suffixes.join(",");
  at("threshold").hidden = !about.has_threshold;
  offerExamples();

  at("file").addEventListener("change", (event) => {
    choose([...event.target.files]);
    event.target.value = ""; // the same file can be chosen again
  });
  at("level").addEventListener("input", () => {
    at("shown-level").textContent = Number(at("level").value).toFixed(2);
  });
  at("level").addEventListener("change", () => {
    if (file) segment();
  });
  // Anywhere on the page: a file dropped beside the field must not replace the page.
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dragging");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    choose([...event.dataTransfer.files]);
  });
  document.body.dataset.ready = "yes";
}

start();
