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
      bar(layer.parameters_before / widest, layer.parameters_after / widest),
      element("span", { class: "number small" }, [lessened(layer.parameters_before, layer.parameters_after, 0)]),
    ]),
  );
  const frame = { class: "layers", tabindex: "0", role: "group", "aria-labelledby": "layers-title" };
  drawn.append(element("div", frame, [element("ol", {}, layers)]));
  return drawn;
}

function tile(label, before, after) {
  const small = element("small", {}, [`of ${count(before)}, ${lessened(before, after, 1)}`]);
  return element("div", {}, [element("dt", {}, [label]), element("dd", {}, [`${count(after)} `, small])]);
}

function lessened(before, after, digits) {
  return `−${(100 * (1 - after / before)).toFixed(digits)} %`;
}

function bar(before, after) {
  const drawn = document.createElementNS(SVG, "svg");
  for (const [name, value] of Object.entries({ viewBox: "0 0 1000 1", preserveAspectRatio: "none", "aria-hidden": "true" })) {
    drawn.setAttribute(name, value);
  }
  for (const [name, width] of [["bar-before", before], ["bar-after", after]]) {
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
