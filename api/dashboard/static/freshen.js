// Keeps the part of a page that says data-fresh="seconds" as the server would draw it now. While somebody is at work in
// it, or looks elsewhere, it is left alone.

import { tell } from "./times.js";

const part = document.querySelector("[data-fresh]");

const inUse = () => document.hidden || (part.contains(document.activeElement) && document.activeElement !== part);

async function freshen() {
  if (inUse()) return;
  let answer;
  try {
    answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  } catch {
    return; // the server is away; the next round asks again
  }
  if (!answer.ok || answer.redirected || inUse()) return;
  const drawn = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("[data-fresh]");
  if (drawn && drawn.innerHTML !== part.dataset.drawn) {
    part.dataset.drawn = drawn.innerHTML;
    part.replaceChildren(...drawn.childNodes);
    tell(part);
  }
}

if (part) setInterval(freshen, 1000 * Number(part.dataset.fresh));
