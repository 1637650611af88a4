// A button on every <pre>, which copies it.

export function addCopying(root) {
  for (const text of root.querySelectorAll("pre")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", () => copy(text, button));
    const frame = document.createElement("div");
    frame.className = "copied";
    text.replaceWith(frame);
    frame.append(text, button);
  }
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(text); // over plain HTTP there is no clipboard: one key press is left to do
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = "Copy"), 2000);
}

addCopying(document);
