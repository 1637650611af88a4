// The model's field as a combobox: what is typed searches the catalogue, the arrow keys choose, Enter takes.

const PAUSE = 150;
const field = document.getElementById("model");
const list = document.getElementById("model-list");
const hint = document.getElementById("model-hint");
const dataset = document.getElementById("dataset");
let timer;
let latest = 0;

const options = () => [...list.querySelectorAll("[role=option]:not([aria-disabled])")];
const current = () => list.querySelector("[aria-selected=true]");

function close() {
  clearTimeout(timer);
  latest += 1; // whatever is still on its way comes too late
  list.hidden = true;
  field.setAttribute("aria-expanded", "false");
  field.removeAttribute("aria-activedescendant");
}

async function search(text) {
  const mine = ++latest;
  let answer;
  try {
    answer = await fetch(`/submit/models?${new URLSearchParams({ search: text })}`);
  } catch {
    return;
  }
  if (!answer.ok || mine !== latest) return;
  const drawn = new DOMParser().parseFromString(await answer.text(), "text/html").body;
  if (mine !== latest || document.activeElement !== field) return;
  list.replaceChildren(...drawn.childNodes);
  list.scrollTop = 0;
  list.hidden = false;
  field.setAttribute("aria-expanded", "true");
  field.removeAttribute("aria-activedescendant");
}

function point(option) {
  current()?.setAttribute("aria-selected", "false");
  if (!option) return;
  option.setAttribute("aria-selected", "true");
  option.scrollIntoView({ block: "nearest" });
  field.setAttribute("aria-activedescendant", option.id);
}

function take(option) {
  field.value = option.dataset.name;
  hint.textContent = option.lastElementChild.textContent;
  const isThere = [...dataset.options].some((each) => each.value === option.dataset.dataset);
  if (option.dataset.dataset && isThere) dataset.value = ""; // the sample's own
  close();
  field.dispatchEvent(new Event("change", { bubbles: true }));
}

function move(step) {
  if (list.hidden) {
    search("");
    return;
  }
  const all = options();
  const here = all.indexOf(current());
  point(all[here < 0 ? (step > 0 ? 0 : all.length - 1) : (here + step + all.length) % all.length]);
}

field.removeAttribute("list");
for (const [name, value] of Object.entries({
  role: "combobox",
  "aria-expanded": "false",
  "aria-controls": "model-list",
  "aria-autocomplete": "list",
})) {
  field.setAttribute(name, value);
}
field.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(search, PAUSE, field.value);
});
field.addEventListener("click", () => {
  if (!list.hidden) return;
  field.select();
  search("");
});
field.addEventListener("keydown", (event) => {
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    move(event.key === "ArrowDown" ? 1 : -1);
  } else if (event.key === "Enter" && !list.hidden) {
    event.preventDefault();
    if (current()) take(current());
    else close();
  } else if (event.key === "Escape" && !list.hidden) {
    event.preventDefault();
    close();
  }
});
field.addEventListener("blur", close);
list.addEventListener("pointerdown", (event) => event.preventDefault()); // the field keeps the focus
list.addEventListener("click", (event) => {
  const option = event.target.closest("[role=option]:not([aria-disabled])");
  if (option) take(option);
});
