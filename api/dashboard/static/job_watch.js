// A job as it goes: its events come as they happen. The browser joins a broken stream behind the last event that it
// had; a stream that was refused is asked for again here. Where the state changes, the server draws the parts anew.

import { tell } from "./times.js";

const FINAL = new Set(["succeeded", "failed", "cancelled"]);
const AGAIN = 4000;
const card = () => document.getElementById("progress-card");
const news = document.getElementById("news");

function watch() {
  const source = new EventSource(`/v1/jobs/${card().dataset.job}/events`);
  for (const kind of ["snapshot", "state", "stage", "progress"]) {
    source.addEventListener(kind, (event) => hear(source, kind, JSON.parse(event.data)));
  }
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) setTimeout(watch, AGAIN);
  });
  addEventListener("pagehide", () => source.close());
}

async function hear(source, kind, event) {
  if (FINAL.has(event.state)) source.close(); // or else the browser would come again
  const changed = event.state !== card().dataset.state;
  if (changed || kind === "stage") await redraw();
  if (changed) news.textContent = `The job is ${event.state}.`;
  const isNow = card().dataset.state === event.state; // what was just drawn may be later
  if (event.state === "running" && event.stage && isNow) advance(event);
}

function advance(event) {
  let isBefore = true;
  for (const item of document.querySelectorAll(".stages li")) {
    const isHere = item.dataset.stage === event.stage;
    if (isHere) isBefore = false;
    item.className = isHere ? "stage-now" : isBefore ? "stage-done" : "stage-ahead";
    item.toggleAttribute("aria-current", isHere);
    if (isHere) item.setAttribute("aria-current", "step");
    item.querySelector("progress").value = isHere ? event.fraction : isBefore ? 1 : 0;
  }
  const training = document.getElementById("training");
  if (event.loss !== null) training.textContent = `Loss ${event.loss.toPrecision(4)}`;
}

function like(had, within) {
  return [...within.querySelectorAll(had.tagName)].find((each) => each.textContent === had.textContent);
}

async function redraw() {
  let answer;
  try {
    answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  } catch {
    return;
  }
  if (!answer.ok || answer.redirected) return;
  const drawn = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of document.querySelectorAll("[data-part]")) {
    const other = drawn.getElementById(part.id);
    if (!other || other.outerHTML === part.dataset.drawn) continue;
    const had = part.contains(document.activeElement) ? document.activeElement : null;
    for (const each of part.querySelectorAll("details[open]")) like(each.firstElementChild, other)?.parentNode.toggleAttribute("open", true);
    other.dataset.drawn = other.outerHTML;
    part.replaceWith(other);
    tell(other);
    if (had) (like(had, other) ?? document.getElementById("content")).focus();
  }
}

if (card() && !FINAL.has(card().dataset.state)) watch();
