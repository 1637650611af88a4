// Keeps the list of jobs as it is now: asks for the page again, often while something is on its way, and takes over the
// rows that differ. What is ticked stays ticked. It rests while nobody looks.

import { tell } from "./times.js";

const LIVELY = 4000;
const CALM = 15000;
const MOST_AT_ONCE = 16; // what /compare takes
const news = document.getElementById("news");

const live = () => document.querySelector("[data-live]");
const isMoving = () => document.querySelector("tr:is([data-state=queued], [data-state=running], [data-state=cancelling])");

function takeOver(drawn) {
  const rows = new Map([...live().children].map((row) => [row.id, row]));
  const told = [];
  const kept = [...drawn.children].map((row) => {
    const old = rows.get(row.id);
    if (!old || old.dataset.drawn === row.innerHTML) return old ?? remember(row);
    if (old.dataset.state !== row.dataset.state) told.push(`${row.dataset.title}: ${row.dataset.state}`);
    const box = old.querySelector("input");
    remember(row);
    if (box?.checked) row.querySelector("input").checked = true;
    const had = old.contains(document.activeElement) ? document.activeElement : null;
    const like = (each) => each.href === had.href && each.name === had.name;
    if (had) queueMicrotask(() => [...row.querySelectorAll("a, input")].find(like)?.focus());
    return row;
  });
  live().replaceChildren(...kept);
  if (told.length) news.textContent = told.join(", ");
}

function remember(row) {
  row.dataset.drawn = row.innerHTML;
  tell(row);
  return row;
}

async function freshen() {
  if (document.hidden) return;
  let answer;
  try {
    answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  } catch {
    return; // the server is away; the next round asks again
  }
  if (!answer.ok || answer.redirected) return;
  const drawn = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("[data-live]");
  if (drawn?.tagName === live()?.tagName && drawn.tagName === "TBODY") takeOver(drawn);
  else if (drawn?.tagName !== live()?.tagName) location.reload();
  count();
}

function count() {
  const ticked = [...document.querySelectorAll("input[name=jobs]:checked")];
  const chosen = ticked.length;
  const isEnough = chosen > 1 || ticked.some((each) => "sweep" in each.dataset);
  const button = document.getElementById("compare");
  if (!button) return;
  button.disabled = !isEnough || chosen > MOST_AT_ONCE;
  document.getElementById("chosen").textContent =
    chosen > MOST_AT_ONCE
      ? `${chosen} chosen, of which ${MOST_AT_ONCE} can be compared at once.`
      : isEnough
        ? `${chosen} chosen`
        : "Choose two or more that have succeeded, or a sweep.";
}

async function go() {
  await freshen();
  setTimeout(go, isMoving() ? LIVELY : CALM);
}

document.addEventListener("visibilitychange", freshen);
document.addEventListener("change", (event) => event.target.name === "jobs" && count());
count();
setTimeout(go, isMoving() ? LIVELY : CALM);
