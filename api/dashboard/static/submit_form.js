// The form as it is filled in: fields that do not count are away, the plan and the equivalents follow, and what the API
// finds wrong stands where it is. The form itself is sent as any form is.

import { addCopying } from "./copying.js";
import { count, drawPlan, drawSweep } from "./plan_view.js";
import { counts, goalOf, pointerOf, requestBody } from "./request_body.js";

const PAUSE = 250; // ms without a change, before anything is asked
const SWEEP = "target_ratios";
const DRY = new Set(["target_ratio", "target_macs", SWEEP]); // the goals that shapes tell
const FEWEST = 2; // sizes of a sweep
const MOST = 16;

const form = document.getElementById("submission");
const plan = document.getElementById("plan");
const news = document.getElementById("plan-news");
let timer;
let asked;

function arrange() {
  for (const field of form.querySelectorAll("[data-goals]")) {
    field.closest("[data-field]").hidden = !counts(field, form);
  }
  form.querySelector("[data-field=epochs]").hidden = !form.elements.finetune.checked;
  document.getElementById("amount-shown").textContent = `${form.elements.amount.value} %`;
  form.elements.amount.setAttribute("aria-valuetext", `${form.elements.amount.value} % removed`);
}

async function follow() {
  asked?.abort();
  asked = new AbortController();
  try {
    await Promise.all([showPlan(asked.signal), showEquivalents(asked.signal)]);
  } catch (error) {
    if (error.name !== "AbortError") say("The server does not answer at the moment.");
  }
}

async function showPlan(signal) {
  const { model, recipe } = requestBody(form);
  if (!model) return say("Choose a model first.");
  const recipes = goalOf(form) === SWEEP ? eachOf(recipe) : [recipe];
  if (!recipes) return say(`Give ${FEWEST} to ${MOST} different sizes, each between 0 and 100 %.`);
  if (!DRY.has(goalOf(form))) return say("This goal takes measuring: the plan is made when the job runs.");
  plan.setAttribute("aria-busy", "true");
  const answers = await Promise.all(recipes.map((each) => askForPlan({ model, recipe: each }, signal)));
  plan.removeAttribute("aria-busy");
  const refused = answers.find((each) => !each.plan);
  showFaults(refused?.errors ?? []);
  if (refused) return say(refused.errors?.length ? "No plan as it stands: see the form." : refused.detail);
  const plans = answers.map((each) => each.plan);
  plan.replaceChildren(plans.length > 1 ? drawSweep(plans) : drawPlan(plans[0]));
  const of = (what) => `${count(plans.at(-1)[`${what}_after`])} of ${count(plans[0][`${what}_before`])}`;
  const least = plans.length > 1 ? `${plans.length} models, the smallest with ` : "";
  news.textContent = `${least}${of("parameters")} parameters, ${of("macs")} MACs`;
}

// The recipe of each model of a sweep, from the largest to the smallest; nothing, if there is no sweep like that.
function eachOf({ target_ratios: ratios, ...recipe }) {
  if (!Array.isArray(ratios) || ratios.length < FEWEST || ratios.length > MOST) return null;
  if (new Set(ratios).size < ratios.length || ratios.some((each) => each <= 0 || each >= 1)) return null;
  return [...ratios].sort((one, other) => one - other).map((ratio) => ({ ...recipe, target_ratio: ratio }));
}

async function askForPlan(body, signal) {
  const headers = { "Content-Type": "application/json" };
  const answer = await fetch("/v1/plans", { method: "POST", headers, body: JSON.stringify(body), signal });
  return answer.json();
}

async function showEquivalents(signal) {
  const answer = await fetch("/submit/equivalents", { method: "POST", body: new URLSearchParams(new FormData(form)), signal });
  if (!answer.ok) return;
  const part = document.getElementById("equivalents");
  const open = [...part.querySelectorAll("details")].findIndex((each) => each.open);
  const drawn = new DOMParser().parseFromString(await answer.text(), "text/html").body;
  [...drawn.querySelectorAll("details")].forEach((each, place) => (each.open = place === open));
  part.replaceChildren(...drawn.childNodes);
  addCopying(part);
}

function say(text) {
  plan.removeAttribute("aria-busy");
  const line = document.createElement("p");
  line.className = "muted";
  line.setAttribute("role", "status");
  line.textContent = text;
  plan.replaceChildren(line);
  news.textContent = "";
}

function showFaults(faults) {
  const found = new Map();
  for (const fault of faults) {
    const name = nearest(fault.pointer ?? "");
    found.set(name, [...(found.get(name) ?? []), fault.message.replace(/^Value error, /, "")]);
  }
  for (const place of form.querySelectorAll("[data-fault]")) {
    const messages = found.get(place.dataset.fault);
    place.textContent = messages?.join(" ") ?? "";
    if (messages) place.closest("details")?.setAttribute("open", "");
    form.elements[place.dataset.fault]?.toggleAttribute?.("aria-invalid", Boolean(messages));
    if (messages) form.elements[place.dataset.fault]?.setAttribute?.("aria-invalid", "true");
  }
}

function nearest(given) {
  if (given === "/recipe") return "goal";
  const pointer = goalOf(form) === SWEEP ? given.replace(/^\/recipe\/target_ratio$/, `/recipe/${SWEEP}`) : given;
  const near = [...form.querySelectorAll("[data-pointer]")]
    .filter((field) => counts(field, form) && `${pointer}/`.startsWith(`${pointerOf(field, form)}/`))
    .sort((one, other) => pointerOf(other, form).length - pointerOf(one, form).length);
  return near[0]?.name ?? "";
}

function changed() {
  arrange();
  clearTimeout(timer);
  timer = setTimeout(follow, PAUSE);
}

form.addEventListener("input", (event) => event.target.id !== "model" && changed()); // half a name is no model yet
form.addEventListener("change", changed);
form.addEventListener("submit", (event) => {
  if (event.submitter) setTimeout(() => (event.submitter.disabled = true)); // once is enough
});
addEventListener("pageshow", () => form.querySelectorAll("button").forEach((each) => (each.disabled = false)));
document.getElementById("preview").hidden = true;
arrange();
if (!document.getElementById("summary")) follow();
document.querySelector("[aria-invalid=true]")?.focus();
