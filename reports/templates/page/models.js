"use strict";
// Every model on the chosen case. This file and page.js are one script on the page; the helpers,
// the chosen view and the case (`state`) are in page.js.

let latest = 0; // the number of the latest call of drawModels

/** A model's Dice and mask of each case; those of a run of the viewer stand there. */
const casesOf = (model) => model.cases ?? view().runs.find((one) => one.key === model.key).cases;

/** How far the models' Dice of a case are apart. */
function spread(place) {
  const scores = view().models.map((model) => casesOf(model)[place].score ?? 0);
  return Math.max(...scores) - Math.min(...scores);
}

/** Draws the chosen case once for each model, with the true outline over the predicted one. */
async function drawModels() {
  if (!view().models.length) return;
  const drawing = ++latest;
  const { place } = state;
  const organs = view().legend.masks.length > 2;
  const shown = view().models.map((model) => ({ model, ...casesOf(model)[place] }));
  if ($("models-order").value === "best") shown.sort((a, b) => (b.score ?? -1) - (a.score ?? -1));
  const [image, truth, ...masks] = await Promise.all(
    [view().images[place], run().cases[place].truth, ...shown.map((one) => one.prediction)].map(picture));
  if (drawing !== latest) return; // a newer drawing has started
  const across = Math.min(512, Math.round(240 * devicePixelRatio));
  const tile = (name, text, mask, href, best) => {
    const canvas = make("canvas", { width: across, height: Math.round(across * image.naturalHeight / image.naturalWidth) });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${view().ids[place]}: ${name}${text && `, Dice ${text}`}`);
    paint(canvas, image, mask, organs ? 0.55 : 0.2, true);
    if (mask !== truth && !organs) {
      canvas.getContext("2d").drawImage(rim(truth, canvas, Math.max(2, across / 150)), 0, 0);
    }
    const title = href ? make("a", { href, textContent: name }) : name;
    const score = text ? [" ", make(best ? "strong" : "span", { textContent: text })] : [];
    return make("figure", {}, canvas, make("figcaption", {}, title, ...score));
  };
  const scores = shown.map((one) => one.score ?? -1);
  const top = Math.max(...scores);
  $("models-grid").replaceChildren(tile("Truth", "", truth), ...shown.map(({ model, score }, i) =>
    tile(model.title, percent(score), masks[i], model.metrics, scores[i] === top)));
  const low = shown[scores.indexOf(Math.min(...scores))];
  const high = shown[scores.indexOf(top)];
  $("models-told").textContent = `${view().ids[place]}: Dice from ${percent(low.score)} (${low.model.title}) `
    + `to ${percent(high.score)} (${high.model.title})`;
  $("models").dataset.drawn = `${view().ids[place]} ${shown.length}`;
}
