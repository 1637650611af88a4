// A dry run's plan, drawn as the server draws it.

const SVG = "http://www.w3.org/2000/svg";

export function count(given) {
  let value = given;
  let letter = "";
  for (const next of ["k", "M", "G", "T"]) {
    if (Math.abs(value) < 999.5) break;
    value /= 1000;
    letter = next;
  }
  return `${Number(value.toPrecision(3))} ${letter}`.trimEnd();
}

export function drawPlan(plan) {
  const drawn = document.createDocumentFragment();
  drawn.append(
    element("dl", { class: "tiles" }, [
      tile("Parameters", plan.parameters_before, plan.parameters_after),
      tile("MACs of one image", plan.macs_before, plan.macs_after),
    ]),
    element("h3", { id: "layers-title" }, ["Layers"]),
  );
  const widest = Math.max(...plan.layers.map((layer) => layer.parameters_before));
  const layers = plan.layers.map((layer) =>
    element("li", {}, [
      element("code", { title: layer.path }, [layer.path]),
      bars([
        ["bar-before", layer.parameters_before / widest],
        ["bar-after", layer.parameters_after / widest],
      ]),
      element("span", { class: "number small" }, [lessened(layer.parameters_before, layer.parameters_after, 0)]),
    ]),
  );
  const frame = { class: "layers", tabindex: "0", role: "group", "aria-labelledby": "layers-title" };
  drawn.append(element("div", frame, [element("ol", {}, layers)]));
  return drawn;
}

// As many models as there are plans, from the largest to the smallest.
export function drawSweep(plans) {
  const drawn = document.createDocumentFragment();
  const heads = ["Removed", "Parameters", "MACs of one image"].map((each) =>
    element("th", { scope: "col", class: "number" }, [each]),
  );
  const row = (first, parameters, macs) =>
    element("tr", {}, [
      element("th", { scope: "row", class: "number" }, [first]),
      element("td", { class: "number" }, [count(parameters)]),
      element("td", { class: "number" }, [count(macs)]),
    ]);
  const [largest] = plans;
  const rows = plans.map((plan) =>
    row(lessened(plan.parameters_before, plan.parameters_after, 1).slice(1), plan.parameters_after, plan.macs_after),
  );
  const table = element("table", { class: "dense" }, [
    element("caption", { class: "unseen", id: "sizes-title" }, ["Sizes"]),
    element("thead", {}, [element("tr", {}, heads)]),
    element("tbody", {}, [...rows, row("original", largest.parameters_before, largest.macs_before)]),
  ]);
  const after = plans.map((plan) => new Map(plan.layers.map((layer) => [layer.path, layer.parameters_after])));
  const widest = Math.max(...largest.layers.map((layer) => layer.parameters_before));
  const layers = largest.layers.map(({ path, parameters_before: before }) => {
    const left = after.filter((each) => each.has(path)).map((each) => each.get(path));
    const least = lessened(before, left.at(0), 0).replace(" %", "");
    return element("li", {}, [
      element("code", { title: path }, [path]),
      bars([["bar-before", before / widest], ...left.map((each) => ["bar-size", each / widest])]),
      element("span", { class: "number small" }, [`${least} to ${lessened(before, left.at(-1), 0)}`]),
    ]);
  });
  const frame = { class: "layers of-sizes", tabindex: "0", role: "group", "aria-labelledby": "layers-title" };
  drawn.append(
    element("div", { class: "scroll", tabindex: "0", role: "region", "aria-labelledby": "sizes-title" }, [table]),
    element("h3", { id: "layers-title" }, ["Layers"]),
    element("p", { class: "small muted" }, ["What is left of each: the smaller the model, the darker."]),
    element("div", frame, [element("ol", {}, layers)]),
  );
  return drawn;
}

function tile(label, before, after) {
  const small = element("small", {}, [`of ${count(before)}, ${lessened(before, after, 1)}`]);
  return element("div", {}, [element("dt", {}, [label]), element("dd", {}, [`${count(after)} `, small])]);
}

function lessened(before, after, digits) {
  return `−${(100 * (1 - after / before)).toFixed(digits)} %`;
}

function bars(parts) {
  const drawn = document.createElementNS(SVG, "svg");
  for (const [name, value] of Object.entries({ viewBox: "0 0 1000 1", preserveAspectRatio: "none", "aria-hidden": "true" })) {
    drawn.setAttribute(name, value);
  }
  for (const [name, width] of parts) {
    const part = document.createElementNS(SVG, "rect");
    part.setAttribute("class", name);
    part.setAttribute("width", Math.round(1000 * width));
    part.setAttribute("height", 1);
    drawn.append(part);
  }
  return drawn;
}

function element(name, attributes, children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
