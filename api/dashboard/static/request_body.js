// The request that the form stands for, read from what its fields say of themselves: which member each is (a JSON
// pointer, * being the goal), and how its text becomes that. What cannot be read goes as it is: the API says why not.

const read = {
  percent: (text) => (Number.isFinite(Number(text)) ? Number(text) / 100 : text),
  percents: (text) => {
    const numbers = text.split(",").filter((each) => each.trim()).map(Number);
    return numbers.every(Number.isFinite) ? numbers.map((each) => each / 100) : text;
  },
  integer: (text) => (/^[+-]?\d+$/.test(text) ? Number(text) : text),
  switch: () => ({}),
  json: (text) => {
    try {
      return JSON.parse(text);
    } catch {
      return text;
    }
  },
  labels: (text) =>
    Object.fromEntries(
      text.split("\n").filter((line) => line.trim()).map((line) => {
        const [key, ...rest] = line.split(":");
        return [key.trim(), rest.join(":").trim()];
      }),
    ),
};

export function goalOf(form) {
  return form.elements.goal.value;
}

export function pointerOf(field, form) {
  return field.dataset.pointer.replace("*", goalOf(form));
}

export function counts(field, form) {
  return !field.dataset.goals || field.dataset.goals.split(" ").includes(goalOf(form));
}

export function requestBody(form) {
  const body = { recipe: {} };
  for (const field of form.querySelectorAll("[data-pointer]")) {
    const isOff = field.type === "checkbox" && !field.checked;
    const text = field.value.trim();
    if (isOff || text === "" || !counts(field, form)) continue;
    const path = pointerOf(field, form).split("/").slice(1);
    const last = path.pop();
    const parent = path.reduce((place, step) => place?.[step], body);
    if (field.dataset.kind === "json") {
      const further = read.json(text);
      const isObject = further !== null && typeof further === "object" && !Array.isArray(further);
      Object.assign(body.recipe, isObject ? further : { "": further });
    } else if (field.dataset.kind === "several") {
      parent[last] = [...(parent[last] ?? []), text];
    } else if (parent) {
      parent[last] = (read[field.dataset.kind] ?? String)(text);
    }
  }
  return body;
}
