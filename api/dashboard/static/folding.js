// What was unfolded to ask for a confirmation is folded again by Escape.

addEventListener("keydown", (event) => {
  const asking = event.key === "Escape" && document.querySelector("details.confirm[open]");
  if (!asking) return;
  asking.open = false;
  asking.querySelector("summary").focus();
});
